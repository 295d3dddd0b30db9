//! `doorward explain`: STUB
