//! Promises of the configuration: the sample is right, and each mistake gets a sentence that names it.

use super::*;

const SAMPLE: &str = include_str!("../../../deploy/examples/gateway.toml");

fn sample_with(change: impl Fn(&str) -> String) -> Result<Config, ConfigError> {
    Config::parse(&change(SAMPLE), Path::new("/etc/tramite"))
}

#[test]
fn the_sample_is_a_valid_configuration_with_paths_beside_the_file() {
    let config = sample_with(str::to_owned).unwrap();
    assert_eq!(config.data, Path::new("/var/lib/tramite-gateway"), "an absolute path stays");
    assert_eq!(config.tls.cert, Path::new("/etc/tramite/certs/tls.pem"));
    assert_eq!(config.institutions.len(), 4);
    assert_eq!(config.institution("caritas").unwrap().quota_parts_mib, 256);
    assert_eq!(config.institution("inps").unwrap().quota_parts_mib, quota_default());
}

#[test]
fn what_the_sample_writes_out_is_what_holds_when_it_is_left_out() {
    let (head, _) = SAMPLE.split_once("[delivery]").unwrap();
    let short = Config::parse(head, Path::new("")).unwrap();
    let long = sample_with(str::to_owned).unwrap();
    assert_eq!(format!("{:?}", short.delivery), format!("{:?}", long.delivery));
    assert_eq!(format!("{:?}", short.limits), format!("{:?}", long.limits));
    assert_eq!(format!("{:?}", short.store), format!("{:?}", long.store));
    assert_eq!(format!("{:?}", short.clock), format!("{:?}", long.clock));
    assert_eq!(format!("{:?}", short.reflection), format!("{:?}", long.reflection));
    assert_eq!(format!("{:?}", short.log), format!("{:?}", long.log));
}

#[test]
fn an_unknown_name_is_refused() {
    let error = sample_with(|text| text.replace("lease_s", "lease_seconds")).unwrap_err();
    assert!(matches!(error, ConfigError::Syntax(_)), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("lease_seconds"));
}

#[test]
fn each_wrong_value_gets_a_sentence_that_names_it() {
    let cases: [(&str, &str, &str); 9] = [
        ("name = \"gateway\"", "name = \"Gate way\"", "name = \"Gate way\" is not a name"),
        ("name = \"inps\"", "name = \"clock\"", "is not a name that an institution may have"),
        ("name = \"comune\"", "name = \"inps\"", "inps stands there twice"),
        ("ipa_code = \"c_a944\"", "", "comune is a PA"),
        ("types = [\"Referral\", ", "types = [\"Raferral\", ", "types names \"Raferral\""),
        ("from = [\"*\"]", "from = [\"nobody\"]", "from names \"nobody\""),
        ("lease_s = 60", "lease_s = 0", "lease_s is 1 to 3600"),
        ("retry_max_ms = 900000", "retry_max_ms = 10", "retry_initial_ms"),
        ("quota_parts_mib = 256", "quota_parts_mib = 0", "quota_parts_mib = 0"),
    ];
    for (right, wrong, sentence) in cases {
        assert!(SAMPLE.contains(right), "{right}");
        let error = sample_with(|text| text.replacen(right, wrong, 1)).unwrap_err();
        assert!(error.to_string().contains(sentence), "{error}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = sample_with(|text| {
        text.replace("lease_s = 60", "lease_s = 0").replace("attempts_max = 20", "attempts_max = 0")
    });
    let ConfigError::Invalid(problems) = error.unwrap_err() else { panic!("both are values") };
    assert_eq!(problems.len(), 2);
}
