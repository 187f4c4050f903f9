//! `tramite codes`: every word that institutions agree on, with its name for people. Needs nobody's answer.

use serde_json::{Map, Value, json};
use tramite_proto::vocabulary::{
    Benefit, DeclinedBy, Disadvantage, Document, DocumentReason, LegalBasis, MandateKind, Need, Outcome, Purpose,
    ReferralReason, Relation,
};

use crate::{
    cli::{CodeList, Codes},
    failure::{Exit, Failure},
    output::{Output, Tone},
    sheet::Step,
};

/// Codes and labels of one vocabulary.
macro_rules! rows {
    ($Name:ident) => {
        $Name::all().map(|code| (code.as_str(), code.label())).collect()
    };
}

/// Lists one vocabulary, or all.
#[expect(clippy::unnecessary_wraps, reason = "as every command")]
pub(crate) fn run(asked: &Codes, output: &Output) -> Result<Exit, Failure> {
    let wanted: Vec<CodeList> = asked.list.map_or_else(|| CodeList::ALL.to_vec(), |list| vec![list]);
    let lists: Map<String, Value> = wanted
        .iter()
        .map(|list| {
            let rows = rows_of(*list).into_iter().map(|(code, label)| json!({"code": code, "label": label}));
            (list.name().to_owned(), rows.collect())
        })
        .collect();
    output.answer(&Value::Object(lists), || {
        let mut table = output.table(&["list", "code", "meaning"]).steps(&[Step::Flow(2), Step::Drop(0)]);
        for list in &wanted {
            for (code, label) in rows_of(*list) {
                let name = output.cell(list.name(), Tone::Faint);
                table.add_row([name, output.cell(code, Tone::Plain), output.cell(label, Tone::Plain)]);
            }
        }
        table.to_string()
    });
    Ok(Exit::Ok)
}

fn rows_of(list: CodeList) -> Vec<(&'static str, &'static str)> {
    match list {
        CodeList::Purposes => rows!(Purpose),
        CodeList::LegalBases => rows!(LegalBasis),
        CodeList::Benefits => rows!(Benefit),
        CodeList::Needs => rows!(Need),
        CodeList::Documents => rows!(Document),
        CodeList::Reasons => rows!(ReferralReason),
        CodeList::DocumentReasons => rows!(DocumentReason),
        CodeList::Outcomes => rows!(Outcome),
        CodeList::DeclinedBy => rows!(DeclinedBy),
        CodeList::Disadvantages => rows!(Disadvantage),
        CodeList::Relations => rows!(Relation),
        CodeList::Mandates => rows!(MandateKind),
    }
}
