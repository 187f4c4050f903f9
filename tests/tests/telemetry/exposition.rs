//! A strict reader of the OpenMetrics text format (version 1.0.0), for what our processes write of it: counters, gauges, histograms.
//!
//! Knows the format, never the names. Whatever it does not know is an error.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// Labels by name.
pub(crate) type Labels = BTreeMap<String, String>;

/// A family: everything under one name.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// What it is, for people.
    pub help: String,
    /// Each sample's full name, labels and value.
    pub samples: Vec<(String, Labels, f64)>,
}

/// Reads a page.
pub(crate) fn parse(page: &str) -> Result<BTreeMap<String, Family>> {
    let page = page.strip_suffix("# EOF\n").context("the page does not end with # EOF")?;
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        let read = if let Some(about) = line.strip_prefix("# ") {
            describe(&mut families, &mut current, about)
        } else {
            sample(line).and_then(|sample| take(&mut families, &current, sample))
        };
        read.with_context(|| line.to_owned())?;
    }
    for (name, family) in &families {
        ensure!(!family.kind.is_empty() && !family.help.is_empty(), "{name} lacks TYPE or HELP");
        if family.kind == "histogram" {
            histogram(family).with_context(|| name.clone())?;
        }
    }
    Ok(families)
}

/// The same page in the older format of Prometheus, in which a counter's family has the name of its sample: for tools that read that one.
pub(crate) fn as_older_text(page: &str) -> Result<String> {
    let families = parse(page)?;
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest))
                if families.get(name).is_some_and(|family| family.kind == "counter") =>
            {
                format!("# {what} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        }
    };
    Ok(page.lines().filter(|text| *text != "# EOF").map(line).collect())
}

fn describe(families: &mut BTreeMap<String, Family>, current: &mut String, about: &str) -> Result<()> {
    let mut words = about.splitn(3, ' ');
    let (what, name) = (words.next().context("nothing")?, words.next().context("no name")?);
    let text = words.next().context("no text")?;
    ensure!(is_name(name), "not a name");
    if current != name {
        ensure!(!families.contains_key(name), "{name} is in two places");
        current.replace_range(.., name);
    }
    let family = families.entry(name.to_owned()).or_default();
    ensure!(family.samples.is_empty(), "described after its samples");
    let place = match what {
        "TYPE" => &mut family.kind,
        "HELP" => &mut family.help,
        _ => bail!("neither TYPE nor HELP"),
    };
    ensure!(place.is_empty(), "said twice");
    text.clone_into(place);
    Ok(())
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
}

/// `name{label="value",…} number`. A label's value with a quotation mark in it is not read: none of ours has one.
fn sample(line: &str) -> Result<(String, Labels, f64)> {
    let (series, value) = line.rsplit_once(' ').context("no value")?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').context("labels do not end")?),
        None => (series, ""),
    };
    ensure!(is_name(name), "not a name");
    let mut read = Labels::new();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').context("a label without value")?;
        let value =
            value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).context("a value in no quotes")?;
        ensure!(is_name(name) && !value.contains(['"', '\\']), "not a label");
        ensure!(read.insert(name.to_owned(), value.to_owned()).is_none(), "a label twice");
    }
    Ok((name.to_owned(), read, value.parse().context("not a number")?))
}

fn take(
    families: &mut BTreeMap<String, Family>,
    current: &str,
    (name, labels, value): (String, Labels, f64),
) -> Result<()> {
    let family = families.get_mut(current).context("a sample before its family")?;
    let endings: &[&str] = match family.kind.as_str() {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => bail!("{other} is no type that we have"),
    };
    ensure!(name.strip_prefix(current).is_some_and(|ending| endings.contains(&ending)), "not a name of {current}");
    ensure!(name.ends_with("_bucket") == labels.contains_key("le"), "buckets, and only they, have `le`");
    ensure!(!family.samples.iter().any(|(known, theirs, _)| *known == name && *theirs == labels), "a series twice");
    ensure!(family.kind == "gauge" || value >= 0.0, "a counter below nothing");
    family.samples.push((name, labels, value));
    Ok(())
}

/// Buckets grow, and the last one, of everything, is the count.
fn histogram(family: &Family) -> Result<()> {
    let mut last: BTreeMap<Labels, (f64, f64)> = BTreeMap::new();
    for (name, labels, value) in &family.samples {
        let mut of = labels.clone();
        if let Some(le) = of.remove("le") {
            let le: f64 = le.parse().context("le")?;
            let (edge, count) = last.insert(of, (le, *value)).unwrap_or((f64::NEG_INFINITY, 0.0));
            ensure!(edge < le && count <= *value, "buckets do not grow: {labels:?}");
        } else if name.ends_with("_count") {
            let buckets = family.samples.iter().filter(|(_, theirs, _)| {
                theirs.get("le").is_some_and(|le| le == "+Inf")
                    && of.iter().all(|(name, value)| theirs.get(name) == Some(value))
            });
            ensure!(
                buckets.map(|(_, _, all)| *all).collect::<Vec<_>>() == [*value],
                "the last bucket is not the count"
            );
        }
    }
    Ok(())
}

#[test]
fn the_reader_refuses_what_the_format_does() {
    let right =
        "# HELP a_b Words.\n# TYPE a_b counter\na_b_total{c=\"d\"} 1\n# HELP g Words.\n# TYPE g gauge\ng -1\n# EOF\n";
    assert_eq!(parse(right).unwrap().len(), 2);
    assert!(as_older_text(right).unwrap().starts_with("# HELP a_b_total Words.\n# TYPE a_b_total counter\na_b_total{"));
    for (what, from, to) in [
        ("no end", "# EOF\n", ""),
        ("no type", "# TYPE g gauge\n", ""),
        ("no help", "# HELP g Words.\n", ""),
        ("a counter without _total", "a_b_total", "a_b"),
        ("a counter below nothing", "} 1", "} -1"),
        ("no number", "} 1", "} one"),
        ("another family's sample", "g -1", "h -1"),
        ("a series twice", "g -1\n", "g -1\ng -1\n"),
        ("labels without end", "\"} 1", "\" 1"),
        ("a family in two places", "g -1\n", "g -1\n# TYPE a_b counter\n"),
        ("after the end", "# EOF\n", "# EOF\ng 1\n"),
    ] {
        assert!(right.contains(from) && parse(&right.replacen(from, to, 1)).is_err(), "{what}");
    }
}
