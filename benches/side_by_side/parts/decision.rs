//! Whether a decision costs the same however many rules, users and roles there are: the policy alone, called as a call does it.

use super::{page, rounds};
use crate::material::Material;
use crate::peer::Kind;
use crate::rig::figures::{Bound, Goal, Spread, goals, publish};
use doorward::authorization::Policy;
use doorward::config::{Assignment, Authorization, DefaultRule, MethodRule, Mode, Position, Role, Rule};
use doorward::grpc::{MethodPath, MethodPattern};
use doorward::identity::{Identity, Permission};
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

const SIZES: [usize; 3] = [10, 1_000, 100_000];
const TURNS: u32 = 200_000;
/// Callers and methods that take turns, so that no look-up finds the memory of the one before.
const DIFFERENT: usize = 10;

/// Nanoseconds.
struct Sample {
    /// The rule of a method, and whether a known caller may pass.
    decision: f64,
    /// What a caller holds whose credential comes for the first time.
    grants: f64,
}

pub fn run(_: &Material, _: &[Kind]) {
    let policies = SIZES.map(policy);
    let mut samples: [Vec<Sample>; 3] = Default::default();
    for _ in 0..rounds() {
        for ((policy, size), samples) in policies.iter().zip(SIZES).zip(&mut samples) {
            samples.push(measure(policy, size));
        }
    }
    let mut text = page(
        "Cost of a decision",
        &format!(
            "As many rules as users as roles; nanoseconds, in this process: finding the rule of a method and whether the caller may pass (on each call), and\n\
             what a caller holds (once for each new credential). {DIFFERENT} callers and methods, spread over the whole, take turns. Median of {} runs of {TURNS} turns.",
            rounds()
        ),
    );
    text.push_str("| rules, users, roles, each | a decision, ns | a caller's grants, ns |\n| --- | --- | --- |\n");
    let of = |samples: &[Sample], figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
    for (size, samples) in SIZES.iter().zip(&samples) {
        let _ = writeln!(text, "| {size} | {} | {} |", of(samples, |s| s.decision), of(samples, |s| s.grants));
    }
    text.push('\n');
    let [few, _, many] = samples.each_ref().map(|samples| of(samples, |sample| sample.decision).median);
    // What the processor's caches make of it is not the policy's.
    text.push_str(&goals(&[Goal {
        what: "a decision among 100,000, of one among 10".to_owned(),
        measured: many / few,
        bound: Bound::AtMost(1.5),
    }]));
    publish(&text, "decision");
}

fn policy(size: usize) -> Policy {
    let at = Position::default;
    let permission = |number: usize| Permission::parse(&format!("resource{number}:call")).expect("a permission");
    let rule = |number| Rule::Caller { any_of: vec![permission(number)], all_of: Vec::new(), from: Vec::new() };
    let authorization = Authorization {
        default: DefaultRule::Deny,
        audit: false,
        roles: (0..size).map(|number| Role { name: format!("role{number}"), permissions: vec![permission(number)], at: at() }).collect(),
        users: (0..size)
            .map(|number| Assignment { subject: format!("user{number}"), roles: vec![format!("role{number}")], at: at() })
            .collect(),
        clients: Vec::new(),
        methods: (0..size)
            .map(|number| MethodRule { pattern: MethodPattern::parse(&method(number)).expect("a pattern"), rule: rule(number), at: at() })
            .collect(),
    };
    Policy::compile(&authorization, Mode::Required, &[])
}

fn method(number: usize) -> String {
    format!("/demo.v1.Service{}/Method{number}", number / 20)
}

fn measure(policy: &Policy, size: usize) -> Sample {
    let number = |turn: usize| turn * (size / DIFFERENT);
    let callers: Vec<_> = (0..DIFFERENT)
        .map(|turn| {
            let identity = Identity {
                user_id: Some(format!("user{}", number(turn)).into()),
                presented: vec!["corporate".into()],
                ..Identity::default()
            };
            let grants = policy.grants(&identity);
            (identity, grants, MethodPath::parse(&method(number(turn))).expect("a path"))
        })
        .collect();
    let decision = nanoseconds(|turn| {
        let Some((identity, grants, path)) = callers.get(turn % DIFFERENT) else { return };
        let permit = policy.authorize(policy.route(black_box(path)), Some((identity, grants)));
        assert!(black_box(permit).is_ok(), "who may call");
    });
    let grants = nanoseconds(|turn| {
        let Some((identity, ..)) = callers.get(turn % DIFFERENT) else { return };
        black_box(policy.grants(black_box(identity)));
    });
    Sample { decision, grants }
}

fn nanoseconds(mut of: impl FnMut(usize)) -> f64 {
    let started = Instant::now();
    (0..TURNS as usize).for_each(&mut of);
    started.elapsed().as_secs_f64() * 1e9 / f64::from(TURNS)
}
