//! The nearest of some known names to one that is not known: for "did you mean".

/// The known name that `wrong` is most likely a slip of the pen of, if any is near enough.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long pasted text is no slip of the pen, and comparing it would cost its square.
    if wrong.len() > 128 {
        return None;
    }
    let wrong = wrong.to_lowercase().replace('-', "_");
    // A third of the letters may be wrong: enough for a typing error in a short name, too little for another word.
    let allowed = (wrong.chars().count() / 3).clamp(1, 4);
    // Of thousands of names few are of a length that comes into question.
    let near_in_length = |name: &&str| name.chars().count().abs_diff(wrong.chars().count()) <= allowed;
    let by_distance = known.into_iter().filter(near_in_length).map(|name| (distance(&wrong, &name.to_lowercase().replace('-', "_")), name));
    by_distance.filter(|(distance, _)| *distance <= allowed).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// `; did you mean "x"?`, or nothing.
pub fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, known).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// Insertions, deletions, replacements and exchanges of neighbours that make `a` into `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let at = |row: &[usize], i: usize| row.get(i).copied().unwrap_or(usize::MAX);
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (at(&above, j) + usize::from(x != y)).min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let exchanged = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if exchanged {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    at(&above, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_counted_in_slips() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3), ("é", "e", 1)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_a_near_name_is_proposed() {
        let known = ["issuer", "audiences", "jwks_url", "connect_timeout", "ca"];
        for (wrong, expected) in [
            ("isuer", Some("issuer")),
            ("audience", Some("audiences")),
            ("jwks-url", Some("jwks_url")),
            ("connectTimeout", Some("connect_timeout")),
            ("cb", Some("ca")),
            ("zzz", None),
            ("", None),
            ("completely_else", None),
        ] {
            assert_eq!(nearest(wrong, known), expected, "{wrong}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
