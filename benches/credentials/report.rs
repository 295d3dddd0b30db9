//! The result as Markdown tables.

use crate::case::{Case, Kind, Peer, Sample};
use crate::rig::figures::{Spread, machine};
use crate::signature::Signature;
use crate::wallet::Traffic;
use crate::{KEYS, SHARES, load};
use std::fmt::Write as _;

pub fn markdown(samples: &[Sample], alone: &[(Signature, f64)], flood: &[(usize, f64)], rounds: usize, calls: usize) -> String {
    let mut text = String::from("# Finding out who is calling, beside HAProxy\n\n");
    let _ = writeln!(
        text,
        "Unary call, 32-byte message, TLS 1.3 (AES-128-GCM) in front, h2c behind; {}. The proxy has one core and one thread, load\n\
         generator and service the other. Figures are CPU µs a call, user + system time of the proxy's process: median of {rounds} interleaved runs\n\
         of {calls} calls, each with a fresh process; in parentheses the least and the most. `make bench-credentials` makes this page.\n\n\
         {}.\n",
        load::SHAPE,
        machine(&[("haproxy", "-v")])
    );
    let figures = Figures(samples);
    tokens(&mut text, &figures, alone);
    forged(&mut text, &figures);
    api_keys(&mut text, &figures);
    memory(&mut text, flood);
    text
}

fn tokens(text: &mut String, figures: &Figures<'_>, alone: &[(Signature, f64)]) {
    text.push_str(
        "## Tokens\n\nThe share of calls that come with a token for the first time; the others all come with one and the same.\n\n",
    );
    text.push_str("| | none new | 1 % | 20 % | all new | a new token costs | of it the signature alone |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    for (signature, alone) in alone {
        let kind = Kind::Token(*signature);
        let median = |peer, share| figures.cpu(peer, kind, Traffic::New(share)).median;
        for peer in Peer::ALL {
            let cells = SHARES.map(|share| figures.cell(peer, kind, Traffic::New(share)));
            let (costs, alone) = match peer {
                Peer::Doorward => (format!("{:.1}", median(peer, 100) - median(peer, 0)), format!("{alone:.1}")),
                Peer::HaProxy => ("–".to_owned(), "–".to_owned()),
            };
            let _ = writeln!(text, "| {}, {} | {} | {costs} | {alone} |", signature.name(), peer.name(), cells.join(" | "));
        }
        let shares = SHARES.map(|share| figures.share(kind, Traffic::New(share)));
        let _ = writeln!(text, "| {}, of HAProxy's | {} | | |", signature.name(), shares.join(" | "));
    }
    text.push_str("\nHAProxy keeps no verdicts: it verifies the token of each call. It does not know EdDSA.\n\n");
}

fn forged(text: &mut String, figures: &Figures<'_>) {
    text.push_str("## Forged credentials\n\nEach call has another one, none of which was ever valid: a token with the signature of another, a key that is not in the file.\n\n");
    text.push_str("| | Doorward | HAProxy | of HAProxy's | connections ended by Doorward, by HAProxy |\n| --- | --- | --- | --- | --- |\n");
    let rows = [
        ("RS256", Kind::Token(Signature::RS256)),
        ("ES256", Kind::Token(Signature::ES256)),
        ("HS256", Kind::Token(Signature::HS256)),
        ("API key, not among 10,000", Kind::ApiKey(10_000)),
    ];
    for (name, kind) in rows {
        let [doorward, haproxy] = Peer::ALL.map(|peer| figures.cell(peer, kind, Traffic::Forged));
        let ended = Peer::ALL.map(|peer| {
            let ended = figures.of(|case| *case == Case { peer, kind, traffic: Traffic::Forged }, |sample| sample.ended_connections as f64);
            format!("{:.0}", ended.median)
        });
        let _ = writeln!(text, "| {name} | {doorward} | {haproxy} | {} | {} |", figures.share(kind, Traffic::Forged), ended.join(", "));
    }
    text.push('\n');
}

fn api_keys(text: &mut String, figures: &Figures<'_>) {
    text.push_str("## API keys\n\nDoorward from its key file, HAProxy from a map of SHA-256 to client. Start: until the process listens (of it on the CPU). Memory: before the first call.\n\n");
    text.push_str("| | same key | another each call | start, ms | memory, MiB |\n| --- | --- | --- | --- | --- |\n");
    for keys in KEYS {
        let kind = Kind::ApiKey(keys);
        for peer in Peer::ALL {
            let cells = [0, 100].map(|share| figures.cell(peer, kind, Traffic::New(share)));
            let start = figures.of(|case| case.peer == peer && case.kind == kind, |sample| sample.start * 1e3);
            let start_cpu = figures.of(|case| case.peer == peer && case.kind == kind, |sample| sample.start_cpu * 1e3);
            let memory = figures.of(|case| case.peer == peer && case.kind == kind, |sample| sample.resident);
            let (start, start_cpu, memory) = (start.median, start_cpu.median, memory.median);
            let _ = writeln!(
                text,
                "| among {}, {} | {} | {start:.0} ({start_cpu:.0}) | {memory:.1} |",
                grouped(keys),
                peer.name(),
                cells.join(" | ")
            );
        }
        let shares = [0, 100].map(|share| figures.share(kind, Traffic::New(share)));
        let _ = writeln!(text, "| among {}, of HAProxy's | {} | | |", grouped(keys), shares.join(" | "));
    }
    text.push('\n');
}

fn memory(text: &mut String, flood: &[(usize, f64)]) {
    if flood.is_empty() {
        return;
    }
    text.push_str("## Memory under a flood of valid tokens\n\nHS256 tokens of as many users, one call each.\n\n| tokens so far | Doorward's memory, MiB |\n| --- | --- |\n");
    for (tokens, memory) in flood {
        let _ = writeln!(text, "| {} | {memory:.1} |", grouped(*tokens));
    }
}

/// The samples, asked by case.
struct Figures<'s>(&'s [Sample]);

impl Figures<'_> {
    fn of(&self, belongs: impl Fn(&Case) -> bool, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.0.iter().filter(|sample| belongs(&sample.case)).map(figure))
    }

    fn cpu(&self, peer: Peer, kind: Kind, traffic: Traffic) -> Spread {
        self.of(|case| *case == Case { peer, kind, traffic }, |sample| sample.cpu_micros)
    }

    fn cell(&self, peer: Peer, kind: Kind, traffic: Traffic) -> String {
        let spread = self.cpu(peer, kind, traffic);
        if spread.median.is_nan() { "–".to_owned() } else { spread.to_string() }
    }

    /// Doorward's part of what HAProxy needs.
    fn share(&self, kind: Kind, traffic: Traffic) -> String {
        let [doorward, haproxy] = Peer::ALL.map(|peer| self.cpu(peer, kind, traffic).median);
        let share = doorward / haproxy;
        if share.is_nan() { "–".to_owned() } else { format!("{share:.2}") }
    }
}

/// 100000 as `100,000`.
fn grouped(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
    }
}
