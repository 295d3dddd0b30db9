//! Whether others can go around us: an upstream that we reach over loopback, and that listens on other addresses too,
//! believes forged identity headers from anyone in the cluster.
//!
//! Functions over what `/proc/net/tcp` and `/proc/net/tcp6` hold (proc_pid_net(5)); opening them is the caller's.

use std::io::{self, BufRead};
use std::net::{IpAddr, SocketAddr};

/// The state TCP_LISTEN, as the kernel writes it.
const LISTEN: &str = "0A";

/// The addresses other than loopback at which `port` is listened on. Each of `ours`, our own listening sockets, stands for
/// one line that is not the upstream's. Line by line: there is one for every connection too, megabytes of them.
pub(super) fn reachable_by_others(port: u16, tcp: impl BufRead, tcp6: impl BufRead, ours: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for line in tcp.lines().chain(tcp6.lines()) {
        found.extend(listening(&line?).filter(|address| address.port() == port && !address.ip().to_canonical().is_loopback()));
    }
    for own in ours {
        if let Some(at) = found.iter().position(|address| address == own) {
            found.swap_remove(at);
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The local address of a line, when it is a listening socket's. The line of column names is none.
fn listening(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (address, port) = local.split_once(':')?;
    (state == LISTEN).then_some(())?;
    Some(SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// The kernel prints an address as 32-bit words of its memory, each in the byte order of the machine.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::net::TcpListener;

    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    const REST: &str = "00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0";

    /// Sockets at `local` in `state`, port 50051 (C383).
    fn lines(sockets: &[(&str, &str)]) -> String {
        let line = |(local, state): &(&str, &str)| format!("   0: {local}:C383 00000000:0000 {state} {REST}\n");
        HEADER.to_owned() + &sockets.iter().map(line).collect::<String>()
    }

    fn found(tcp: &[(&str, &str)], tcp6: &[(&str, &str)], ours: &[&str]) -> Vec<String> {
        let ours: Vec<SocketAddr> = ours.iter().map(|address| address.parse().unwrap()).collect();
        let found = reachable_by_others(50051, lines(tcp).as_bytes(), lines(tcp6).as_bytes(), &ours).unwrap();
        found.iter().map(SocketAddr::to_string).collect()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn only_loopback_is_out_of_reach() {
        const V6_LOOPBACK: &str = "00000000000000000000000001000000";
        const V4_MAPPED_LOOPBACK: &str = "0000000000000000FFFF00000100007F";
        let nothing: [String; 0] = [];
        assert_eq!(found(&[], &[], &[]), nothing);
        assert_eq!(found(&[("0100007F", "0A"), ("0200017F", "0A")], &[(V6_LOOPBACK, "0A"), (V4_MAPPED_LOOPBACK, "0A")], &[]), nothing);
        assert_eq!(found(&[("00000000", "0A")], &[], &[]), ["0.0.0.0:50051"]);
        assert_eq!(found(&[("0100007F", "0A"), ("0301020A", "0A")], &[], &[]), ["10.2.1.3:50051"]);
        assert_eq!(found(&[], &[("00000000000000000000000000000000", "0A")], &[]), ["[::]:50051"]);
        assert_eq!(found(&[], &[("B80D01200000000000000000010000FE", "0A")], &[]), ["[2001:db8::fe00:1]:50051"]);
    }

    #[test]
    fn a_connection_is_no_listener_and_another_port_no_exposure() {
        assert_eq!(found(&[("00000000", "01"), ("00000000", "06")], &[], &[]).len(), 0);
        assert_eq!(reachable_by_others(50052, lines(&[("00000000", "0A")]).as_bytes(), io::empty(), &[]).unwrap(), []);
    }

    #[test]
    fn our_own_socket_is_not_the_upstream() {
        assert_eq!(found(&[("00000000", "0A")], &[], &["0.0.0.0:50051"]).len(), 0);
        assert_eq!(found(&[("00000000", "0A"), ("00000000", "0A")], &[], &["0.0.0.0:50051"]), ["0.0.0.0:50051"]);
    }

    #[test]
    fn the_kernel_of_this_machine_is_understood() {
        let read = |port| {
            let text = |name| fs::read(name).unwrap_or_default();
            reachable_by_others(port, &*text("/proc/net/tcp"), &*text("/proc/net/tcp6"), &[]).unwrap()
        };
        let (open, local) = (TcpListener::bind("0.0.0.0:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = open.local_addr().unwrap();
        assert_eq!(read(address.port()), [address]);
        assert_eq!(read(local.local_addr().unwrap().port()), []);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[ -~\n€]{0,200}", local in "[0-9A-Fa-f€+]{0,34}:[0-9A-F]{0,5}") {
            let _ = reachable_by_others(1, text.as_bytes(), format!(" 0: {local} 0:0 0A").as_bytes(), &[]);
        }
    }
}
