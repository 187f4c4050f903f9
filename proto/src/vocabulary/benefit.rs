//! Benefits and rights, with the law behind each.
//!
//! Knows: keys of our own (INPS's SIUSS list has no code for the newer ones), SIUSS codes, legal sources, who provides.
//! Never knows: amounts and thresholds: they change each year and belong to the catalogue of rules.
use crate::codes::codes;

codes! {
    /// A right that a person may have and not know of.
    pub enum Benefit("a benefit code") {
        Adi = "ADI", "Assegno di Inclusione";
        Sfl = "SFL", "Supporto per la Formazione e il Lavoro";
        Auu = "AUU", "Assegno Unico e Universale";
        Naspi = "NASPI", "NASpI";
        Discoll = "DISCOLL", "DIS-COLL";
        AssegnoSociale = "ASSEGNO_SOCIALE", "Assegno sociale";
        InvPensione = "INV_PENSIONE", "Pensione di inabilità civile";
        InvAssegno = "INV_ASSEGNO", "Assegno mensile di invalidità civile";
        Accompagnamento = "ACCOMPAGNAMENTO", "Indennità di accompagnamento";
        CartaAcquisti = "CARTA_ACQUISTI", "Carta acquisti";
        BonusNido = "BONUS_NIDO", "Bonus asilo nido";
        ResidenzaSfd = "RESIDENZA_SFD", "Iscrizione anagrafica della persona senza fissa dimora";
        Mensa = "MENSA", "Mensa sociale";
        Accoglienza = "ACCOGLIENZA", "Accoglienza di adulti e anziani";
        Igiene = "IGIENE", "Servizi per l'igiene personale";
        BeniPrimari = "BENI_PRIMARI", "Distribuzione di beni di prima necessità";
        InserimentoLavorativo = "INSERIMENTO_LAVORATIVO", "Supporto all'inserimento lavorativo";
        RicercaAlloggio = "RICERCA_ALLOGGIO", "Supporto per reperire un alloggio";
        IntegrazioneSociale = "INTEGRAZIONE_SOCIALE", "Integrazione sociale di soggetti deboli o a rischio";
        MediazioneCulturale = "MEDIAZIONE_CULTURALE", "Mediazione culturale";
        Rem = "REM", "Reddito di Emergenza (2020–2021)";
        Rdc = "RDC", "Reddito di cittadinanza (2019–2023)";
        Pdc = "PDC", "Pensione di cittadinanza (2019–2023)";
    }
}

/// What does not change from year to year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenefitFacts {
    /// Code in INPS's vocabulary of social benefits, where it has one.
    pub siuss: Option<&'static str>,
    /// The law behind it; empty for local services, which rest on local acts.
    pub source: &'static str,
    /// Who provides it.
    pub provider: &'static str,
    /// The last year in which it could be claimed; none: it still can.
    pub ended: Option<u16>,
}

const fn facts(siuss: Option<&'static str>, source: &'static str, provider: &'static str) -> BenefitFacts {
    BenefitFacts { siuss, source, provider, ended: None }
}

const fn historical(siuss: &'static str, source: &'static str, ended: u16) -> BenefitFacts {
    BenefitFacts { siuss: Some(siuss), source, provider: "INPS", ended: Some(ended) }
}

impl Benefit {
    /// Legal source, SIUSS code, provider.
    #[must_use]
    pub const fn facts(self) -> BenefitFacts {
        const LOCAL: &str = "Comune, ASP, Caritas";
        match self {
            Self::Adi => facts(None, "DL 48/2023 art. 1-11, L. 85/2023; DM 154/2023", "INPS"),
            Self::Sfl => facts(None, "DL 48/2023 art. 12, L. 85/2023", "INPS"),
            Self::Auu => facts(None, "D.Lgs. 230/2021", "INPS"),
            Self::Naspi => facts(None, "D.Lgs. 22/2015; L. 207/2024 art. 1 c. 171", "INPS"),
            Self::Discoll => facts(None, "D.Lgs. 22/2015 art. 15", "INPS"),
            Self::AssegnoSociale => facts(Some("A4.10"), "L. 335/1995 art. 3 c. 6", "INPS"),
            Self::InvPensione => facts(Some("A4.01"), "L. 118/1971 art. 12", "INPS"),
            Self::InvAssegno => facts(Some("A4.04"), "L. 118/1971 art. 13", "INPS"),
            Self::Accompagnamento => facts(Some("A4.05"), "L. 18/1980", "INPS"),
            Self::CartaAcquisti => facts(Some("A1.03"), "DL 112/2008 art. 81 c. 29", "MEF, INPS, Poste"),
            Self::BonusNido => facts(None, "L. 232/2016 art. 1 c. 355", "INPS"),
            Self::ResidenzaSfd => facts(None, "L. 1228/1954 art. 2 c. 3-4; DPR 223/1989", "Comune"),
            Self::Mensa => facts(Some("A2.01"), "", LOCAL),
            Self::Accoglienza => facts(Some("A2.18"), "", LOCAL),
            Self::Igiene => facts(Some("A2.23"), "", LOCAL),
            Self::BeniPrimari => facts(Some("A2.22"), "", LOCAL),
            Self::InserimentoLavorativo => {
                facts(Some("A2.09"), "", "Comune, Città metropolitana (Insieme per il Lavoro)")
            }
            Self::RicercaAlloggio => facts(Some("A2.16"), "", LOCAL),
            Self::IntegrazioneSociale => facts(Some("A2.17"), "", LOCAL),
            Self::MediazioneCulturale => facts(Some("A2.19"), "", LOCAL),
            Self::Rem => historical("A1.04.02", "DL 41/2021 art. 12; DL 73/2021", 2021),
            Self::Rdc => historical("A7.01", "DL 4/2019, L. 26/2019; ended by DL 48/2023 art. 13", 2023),
            Self::Pdc => historical("A7.02", "DL 4/2019, L. 26/2019; ended by DL 48/2023 art. 13", 2023),
        }
    }
}

codes! {
    /// How far an application for a benefit is, in INPS's own words (its states of an application, then of a benefit).
    pub enum BenefitStage("a benefit state") {
        Bozza = "BOZZA", "draft";
        Protocollata = "PROTOCOLLATA", "filed";
        Integrazione = "INTEGRAZIONE", "more documents asked for";
        Accolta = "ACCOLTA", "granted";
        Rifiutata = "RIFIUTATA", "refused";
        Riesame = "RIESAME", "being reviewed";
        Ricorso = "RICORSO", "appealed against";
        Erogato = "EROGATO", "being paid";
        Sospeso = "SOSPESO", "suspended";
        Decaduto = "DECADUTO", "forfeited";
        Cessato = "CESSATO", "ended";
    }
}
