//! The tree of values by which a part of a machine shows its state.

use minicbor::Decode;
use minicbor::Encode;

/// A value that is shown, or a list or an object of them.
///
/// As a message a tree may be 15 levels deep ([`payload::MAX_DEPTH`](crate::payload::MAX_DEPTH), at four a level).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum InspectTree {
    /// No value.
    #[n(0)]
    Null,
    /// True or false.
    #[n(1)]
    #[cbor(map)]
    Bool(#[n(1)] bool),
    /// A number that is not negative.
    #[n(2)]
    #[cbor(map)]
    Unsigned(#[n(1)] u64),
    /// A number that may be negative.
    #[n(3)]
    #[cbor(map)]
    Signed(#[n(1)] i64),
    /// A text.
    #[n(4)]
    #[cbor(map)]
    Text(#[n(1)] String),
    /// Values without names.
    #[n(5)]
    #[cbor(map)]
    List(#[n(1)] Vec<InspectTree>),
    /// Values with names, in the order in which they are shown.
    #[n(6)]
    #[cbor(map)]
    Object(#[n(1)] Vec<(String, InspectTree)>),
}

#[cfg(feature = "json")]
mod json {
    use super::InspectTree;
    use serde_json::Value;

    impl From<Value> for InspectTree {
        /// Numbers that are not integers become texts.
        fn from(value: Value) -> Self {
            match value {
                Value::Null => Self::Null,
                Value::Bool(value) => Self::Bool(value),
                Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                    (Some(value), _) => Self::Unsigned(value),
                    (None, Some(value)) => Self::Signed(value),
                    (None, None) => Self::Text(number.to_string()),
                },
                Value::String(text) => Self::Text(text),
                Value::Array(values) => Self::List(values.into_iter().map(Self::from).collect()),
                Value::Object(values) => Self::Object(
                    values
                        .into_iter()
                        .map(|(name, value)| (name, value.into()))
                        .collect(),
                ),
            }
        }
    }

    impl From<InspectTree> for Value {
        fn from(tree: InspectTree) -> Self {
            match tree {
                InspectTree::Null => Self::Null,
                InspectTree::Bool(value) => value.into(),
                InspectTree::Unsigned(value) => value.into(),
                InspectTree::Signed(value) => value.into(),
                InspectTree::Text(text) => text.into(),
                InspectTree::List(values) => values.into_iter().map(Self::from).collect(),
                InspectTree::Object(values) => values
                    .into_iter()
                    .map(|(name, value)| (name, Self::from(value)))
                    .collect(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload;

    fn tree() -> InspectTree {
        let list = vec![InspectTree::Null, InspectTree::Signed(-1)];
        InspectTree::Object(vec![
            ("z".to_owned(), InspectTree::Bool(true)),
            ("a".to_owned(), InspectTree::Unsigned(u64::MAX)),
            ("text".to_owned(), InspectTree::Text("text".to_owned())),
            ("list".to_owned(), InspectTree::List(list)),
        ])
    }

    #[test]
    fn a_tree_is_a_message() {
        assert_eq!(payload::decode(&payload::encode(&tree())), Ok(tree()));
    }

    #[test]
    fn the_depth_of_a_tree_is_bounded() {
        let nested = |depth| {
            (0..depth).fold(InspectTree::Null, |tree, _| {
                InspectTree::Object(vec![(String::new(), tree)])
            })
        };
        let decode = |depth| payload::decode::<InspectTree>(&payload::encode(&nested(depth)));
        assert_eq!(decode(15), Ok(nested(15)));
        assert_eq!(decode(16), Err(payload::DecodeError::TooDeep));
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_and_back() {
        let json =
            serde_json::json!({"z": true, "a": u64::MAX, "text": "text", "list": [null, -1]});
        assert_eq!(InspectTree::from(json.clone()), tree());
        let back = serde_json::Value::from(tree());
        // Compared as text: the order of the names is kept.
        assert_eq!(back.to_string(), json.to_string());
        assert_eq!(
            InspectTree::from(serde_json::json!(1.5)),
            InspectTree::Text("1.5".into())
        );
    }
}
