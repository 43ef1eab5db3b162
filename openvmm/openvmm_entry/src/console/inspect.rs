//! Selects from and prints the tree of a VM's state.

use serde_json::Value;
use std::fmt::Write;

/// Returns the part of `tree` at `path`: names separated by `/`. An empty path selects the whole tree.
pub(crate) fn select<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/')
        .filter(|name| !name.is_empty())
        .try_fold(tree, |node, name| match node {
            Value::Object(children) => children.get(name),
            Value::Array(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        })
}

/// Returns the paths that start with `partial`.
pub(crate) fn completions(tree: &Value, partial: &str) -> Vec<String> {
    let (parent, prefix) = partial.rsplit_once('/').unwrap_or(("", partial));
    let Some(Value::Object(children)) = select(tree, parent) else {
        return Vec::new();
    };
    children
        .iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, child)| {
            let slash = if child.is_object() { "/" } else { "" };
            match parent {
                "" => format!("{name}{slash}"),
                _ => format!("{parent}/{name}{slash}"),
            }
        })
        .collect()
}

/// Formats `value` as indented text.
pub(crate) fn render(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(_) | Value::Array(_) => render_children(value, 0, &mut text),
        _ => {
            text.push_str(&scalar(value));
            text.push('\n');
        }
    }
    text
}

fn render_children(value: &Value, depth: usize, text: &mut String) {
    let mut child = |name: &str, value: &Value| {
        // Writing to a String is infallible.
        let _ = write!(text, "{:indent$}{name}:", "", indent = depth * 2);
        if is_leaf(value) {
            let _ = writeln!(text, " {}", scalar(value));
        } else {
            text.push('\n');
            render_children(value, depth + 1, text);
        }
    };
    match value {
        Value::Object(children) => children.iter().for_each(|(name, value)| child(name, value)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(n, value)| child(&n.to_string(), value)),
        _ => {}
    }
}

fn is_leaf(value: &Value) -> bool {
    match value {
        Value::Object(children) => children.is_empty(),
        Value::Array(items) => items
            .iter()
            .all(|item| !item.is_object() && !item.is_array()),
        _ => true,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(" "),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree() -> Value {
        json!({"vm": {"state": "running"}, "vps": {"0": {"rip": "0x1000"}, "1": {}}, "list": [1, 2], "deep": [{"a": 1}]})
    }

    #[test]
    fn paths_select() {
        let tree = tree();
        assert_eq!(select(&tree, ""), Some(&tree));
        assert_eq!(select(&tree, "/vm/state"), Some(&json!("running")));
        assert_eq!(select(&tree, "vps/0/"), Some(&json!({"rip": "0x1000"})));
        assert_eq!(select(&tree, "deep/0/a"), Some(&json!(1)));
        assert_eq!(select(&tree, "vm/none"), None);
        assert_eq!(select(&tree, "vm/state/x"), None);
    }

    #[test]
    fn partial_paths_complete() {
        let tree = tree();
        assert_eq!(completions(&tree, "v"), ["vm/", "vps/"]);
        assert_eq!(completions(&tree, "vps/0/r"), ["vps/0/rip"]);
        assert!(completions(&tree, "none/").is_empty());
    }

    #[test]
    fn text_is_indented() {
        assert_eq!(
            render(&tree()),
            "vm:\n  state: running\nvps:\n  0:\n    rip: 0x1000\n  1: {}\nlist: 1 2\ndeep:\n  0:\n    a: 1\n"
        );
        assert_eq!(render(&json!(7)), "7\n");
    }
}
