use super::*;
use proptest::prelude::*;

fn json(mode: &str, signatures: &str, variables: &str) -> String {
    format!(
        r#"{{"type": "Microsoft.Compute/disks", "properties": {{"uefiSettings": {{
            "signatureMode": "{mode}", "signatures": {signatures} {variables} }}}}}}"#
    )
}

fn parse(
    mode: &str,
    signatures: &str,
    variables: &str,
) -> Result<CustomVariables, CustomVariablesError> {
    CustomVariables::from_json(json(mode, signatures, variables).as_bytes())
}

const X509: &str = r#"{"type": "x509", "value": ["AQI="]}"#;
const DEFAULT: &str = r#"{"type": "Default"}"#;

fn x509(bytes: &[u8]) -> Signature {
    Signature::X509(bytes.to_vec())
}

fn template() -> SecureBootKeys {
    SecureBootKeys {
        pk: Some(x509(b"pk")),
        kek: vec![x509(b"kek")],
        db: vec![x509(b"db")],
        dbx: vec![Signature::Sha256([5; 32])],
        ..SecureBootKeys::default()
    }
}

#[test]
fn keys_are_appended_to_those_of_a_template() {
    let digest = BASE64.encode(&[7; 32]);
    let signatures = format!(
        r#"{{"db": [{X509}, {X509}], "dbx": [{{"type": "sha256", "value": ["{digest}"]}}]}}"#
    );
    let custom = parse("Append", &signatures, "").unwrap();
    let keys = custom.clone().apply(Some(template())).unwrap();
    assert_eq!(keys.pk, template().pk);
    assert_eq!(keys.db, [x509(b"db"), x509(&[1, 2]), x509(&[1, 2])]);
    assert_eq!(
        keys.dbx,
        [Signature::Sha256([5; 32]), Signature::Sha256([7; 32])]
    );
    let error = custom.apply(None).unwrap_err();
    assert!(error.to_string().contains("Append"), "{error}");
}

#[test]
fn keys_replace_those_of_a_template() {
    let signatures = format!(r#"{{"PK": {DEFAULT}, "KEK": [{X509}], "db": [{DEFAULT}]}}"#);
    let custom = parse("Replace", &signatures, "").unwrap();
    let keys = custom.clone().apply(Some(template())).unwrap();
    let expected = SecureBootKeys {
        kek: vec![x509(&[1, 2])],
        dbx: Vec::new(),
        ..template()
    };
    assert_eq!(keys, expected);
    let error = custom.apply(None).unwrap_err();
    assert!(error.to_string().contains("Default"), "{error}");
    let signatures = format!(r#"{{"PK": {X509}, "KEK": [{X509}], "db": [{X509}]}}"#);
    let keys = parse("Replace", &signatures, "")
        .unwrap()
        .apply(None)
        .unwrap();
    assert_eq!(keys.pk, Some(x509(&[1, 2])));
}

#[test]
fn variables_have_a_vendor_attributes_and_a_value() {
    let guid = BASE64.encode(&[3; 16]);
    let variable = |name: &str, attributes: &str, value: &str| {
        format!(
            r#", "{name}": {{"guid": "{guid}", "attributes": "{attributes}", "value": "{value}"}}"#
        )
    };
    let custom = parse("Append", "{}", &variable("Extra", "BwA=", "AQ==")).unwrap();
    let keys = custom.apply(Some(template())).unwrap();
    let expected = InjectedVariable {
        name: "Extra".into(),
        vendor: [3; 16],
        attributes: 7,
        data: vec![1],
    };
    assert_eq!(keys.variables, [expected]);
    for (name, attributes, value, words) in [
        ("dbDefault", "Bw==", "AQ==", "copy of `db`"),
        ("", "Bw==", "AQ==", "name"),
        ("x", "", "AQ==", "1 to 4 bytes"),
        ("x", "AQAAAAA=", "AQ==", "1 to 4 bytes"),
        ("x", "AAE=", "AQ==", "not defined"),
        ("x", "Bw==", "", "has a value"),
        ("x", "Bw==", "!", "base64"),
    ] {
        let error = parse("Append", "{}", &variable(name, attributes, value)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let two = r#"{"type": "x509", "value": ["AQI=", "AQI="]}"#;
    let short = r#"{"type": "sha256", "value": ["AQI="]}"#;
    let none = r#"{"type": "x509", "value": []}"#;
    for (mode, signatures, words) in [
        (
            "Append",
            format!(r#"{{"db": [{DEFAULT}]}}"#),
            "mode `Replace`",
        ),
        ("Append", format!(r#"{{"PK": {X509}}}"#), "one platform key"),
        ("Append", format!(r#"{{"db": [{short}]}}"#), "32 bytes"),
        ("Append", format!(r#"{{"db": [{none}]}}"#), "no signature"),
        ("Append", r#"{"dbt": []}"#.into(), "JSON"),
        ("Merge", "{}".into(), "JSON"),
        (
            "Replace",
            format!(r#"{{"KEK": [{X509}], "db": [{X509}]}}"#),
            "`PK`",
        ),
        (
            "Replace",
            format!(r#"{{"PK": {X509}, "db": [{X509}]}}"#),
            "`KEK`",
        ),
        (
            "Replace",
            format!(r#"{{"PK": {X509}, "KEK": [{X509}]}}"#),
            "`db`",
        ),
        (
            "Replace",
            format!(r#"{{"PK": {two}, "KEK": [{X509}], "db": [{X509}]}}"#),
            "one certificate",
        ),
        (
            "Replace",
            format!(r#"{{"PK": {X509}, "KEK": [{X509}, {DEFAULT}], "db": []}}"#),
            "alone",
        ),
    ] {
        let error = parse(mode, &signatures, "").unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let other = json("Append", "{}", "").replace("disks", "images");
    let error = CustomVariables::from_json(other.as_bytes()).unwrap_err();
    assert!(matches!(error, CustomVariablesError::Type(_)), "{error}");
    let error = CustomVariables::from_json(&vec![b' '; MAX_JSON_LEN + 1]).unwrap_err();
    assert!(matches!(error, CustomVariablesError::TooLong(_)), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        CustomVariables::from_json(&bytes).unwrap_err();
    }
}
