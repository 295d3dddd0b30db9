//! All goals on one page, `README.md` of the results: what is to be reached, what was, and the pictures. Made from the pages that
//! are there, so that it stays whole when only some parts are measured anew.

use crate::parts;
use crate::rig::figures::result;
use std::fmt::Write as _;
use std::fs;

pub fn publish() {
    let soak = if result("soak.md").exists() { "the [soak](soak.md)" } else { "the soak, not measured yet" };
    let mut text = format!(
        "# Results\n\nWhat was measured last, good or bad, each subject with its goals; the pages have the whole tables. `make bench` makes all of this, but for\n\
         [credentials](credentials.md) (`make bench-credentials`) and {soak} (`make soak`). How: [What a call costs](../../docs/performance.md).\n\n",
    );
    for part in parts::ALL {
        let Ok(page) = fs::read_to_string(result(&format!("{}.md", part.name))) else { continue };
        let title = page.lines().next().unwrap_or_default().trim_start_matches("# ");
        let _ = writeln!(text, "## [{title}]({}.md)\n", part.name);
        if result(&format!("{}.svg", part.name)).exists() {
            let _ = writeln!(text, "![{title}]({}.svg)\n", part.name);
        }
        match page.split_once("## Goals\n\n") {
            Some((_, goals)) => text.push_str(&format!("{}\n\n", goals.trim_end())),
            None => text.push_str("No goal of its own.\n\n"),
        }
    }
    fs::write(result("README.md"), text.trim_end().to_owned() + "\n").expect("the page of all goals");
}
