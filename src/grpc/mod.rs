//! The wire vocabulary of gRPC: codes, status trailers, timeouts, method paths, the services of a descriptor.
//!
//! Pure functions and values over bytes; knows nothing of Doorward's rules. What parses here is fed by clients, so every
//! parser is total, allocation-free where it can be, and fuzzed.

mod code;
mod descriptors;
mod message;
mod method;
mod status;
mod timeout;

pub use code::Code;
pub use descriptors::{NoDescriptors, Services};
pub(crate) use message::{
    FieldValue, append_chosen_number, append_field, append_fixed32, append_fixed64, append_message, append_number, begin_frame, end_frame,
    fields, split_frame,
};
pub use message::{FrameError, NotProtobuf, frame_field, frame_text, framed_text, length_delimited};
pub use method::{MethodPath, MethodPattern, PatternError};
pub use status::{ErrorInfo, GRPC_STATUS, encode_details, encode_message};
pub use timeout::{GRPC_TIMEOUT, TimeoutError, parse_timeout};
