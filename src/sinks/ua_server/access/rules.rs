//! `[[ua_server.access]]`: from which role on an action is allowed, by path.
//!
//! A node's path is its NodeId, which is made of the names below Objects (address_space.rs). For each action the longest
//! path that says something about it wins; without any the defaults hold. Nodes of the standard have no path.

use crate::model::Role;
use crate::opcua::server::authenticator::Action;
use crate::sinks::ua_server::address_space::CAMERA_IMAGE;
use crate::sinks::ua_server::snapshot;
use ::opcua::types::{Identifier, MethodId, NodeId};
use serde::Deserialize;

/// `[[ua_server.access]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// As browsed below Objects: "Tags/line1", "Cameras/line1/Snapshot". For this node and all below it.
    pub path: String,
    /// From which role on a node is seen at all. Default, as of the others: what a shorter path says, else viewer.
    pub browse: Option<Role>,
    /// Values, also by subscription and from the history. Default: viewer.
    pub read: Option<Role>,
    /// Default: operator.
    pub write: Option<Role>,
    /// Default: of Snapshot viewer, of ReloadConfiguration admin, of other methods operator.
    pub call: Option<Role>,
}

impl AccessRule {
    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let is_path = !self.path.is_empty() && self.path.split('/').all(|name| !name.is_empty() && name.trim() == name);
        if !is_path {
            let what = "must be names as browsed below Objects, with / between them, as in \"Tags/line1\"";
            faults.push(("path", format!("{:?} {what}", self.path)));
        }
        if [self.browse, self.read, self.write, self.call] == [None; 4] {
            faults.push(("path", "says nothing about it; add browse, read, write or call".into()));
        }
        faults
    }

    fn needed(&self, action: Action) -> Option<Role> {
        match action {
            Action::Browse => self.browse,
            Action::Read => self.read,
            Action::Write => self.write,
            Action::Call => self.call,
        }
    }

    fn is_for(&self, path: &str) -> bool {
        path.strip_prefix(&*self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The longest path first.
pub(in crate::sinks::ua_server) struct Rules(Vec<AccessRule>);

impl Rules {
    pub(super) fn new(rules: &[AccessRule]) -> Self {
        let mut rules = rules.to_vec();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.path.len()));
        Self(rules)
    }

    /// The least role for an action on a node; never less than for browsing it.
    pub(super) fn needed(&self, action: Action, node: &NodeId) -> Role {
        let Some(path) = path(node) else { return default(action, None, node) };
        let said = |action| {
            let rule = self.0.iter().filter(|rule| rule.is_for(path)).find_map(|rule| rule.needed(action));
            rule.unwrap_or_else(|| default(action, Some(path), node))
        };
        let needed = if action == Action::Browse { said(action) } else { said(action).max(said(Action::Browse)) };
        // Whoever takes a picture reads it.
        match path.strip_suffix(snapshot::NAME).filter(|camera| action == Action::Call && camera.ends_with('/')) {
            Some(camera) => {
                needed.max(self.needed(Action::Read, &NodeId::new(node.namespace, camera.to_owned() + CAMERA_IMAGE)))
            }
            None => needed,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The paths for which `exists` says no.
    pub(in crate::sinks::ua_server) fn without_node(&self, exists: impl Fn(&str) -> bool) -> Vec<&str> {
        self.0.iter().map(|rule| &*rule.path).filter(|path| !exists(path)).collect()
    }
}

fn path(node: &NodeId) -> Option<&str> {
    match &node.identifier {
        Identifier::String(path) if node.namespace > 1 => Some(path.as_ref()),
        _ => None,
    }
}

fn default(action: Action, path: Option<&str>, node: &NodeId) -> Role {
    match (action, path) {
        (Action::Browse | Action::Read, _) => Role::Viewer,
        (Action::Write, _) => Role::Operator,
        (Action::Call, Some(path)) => default_call_role(path.rsplit('/').next().unwrap_or(path)),
        (Action::Call, None) => standard_call_role(node),
    }
}

/// From which role on a method of ours may be called, by its BrowseName.
pub(in crate::sinks::ua_server) fn default_call_role(method: &str) -> Role {
    match method {
        snapshot::NAME => Role::Viewer,
        "ReloadConfiguration" => Role::Admin,
        _ => Role::Operator,
    }
}

/// The same for methods of the standard: those of conditions that change one (OPC 10000-9, 5.5.6 and 5.7) are for who
/// runs the plant. What is left, such as GetMonitoredItems and ConditionRefresh, is about the caller's own subscriptions.
fn standard_call_role(node: &NodeId) -> Role {
    let operating = [
        MethodId::ConditionType_Enable,
        MethodId::ConditionType_Disable,
        MethodId::ConditionType_AddComment,
        MethodId::AcknowledgeableConditionType_Acknowledge,
        MethodId::AcknowledgeableConditionType_Confirm,
    ];
    if operating.iter().any(|method| *node == NodeId::from(*method)) { Role::Operator } else { Role::Viewer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{Browse, Call, Read, Write};
    use Role::{Admin, Operator, Viewer};

    fn rule(path: &str, [browse, read, write, call]: [Option<Role>; 4]) -> AccessRule {
        AccessRule { path: path.into(), browse, read, write, call }
    }

    fn node(path: &str) -> NodeId {
        NodeId::new(2, path)
    }

    #[test]
    fn without_rules_the_defaults_hold() {
        let rules = Rules::new(&[]);
        let needed = [Browse, Read, Write].map(|action| rules.needed(action, &node("Tags/line1/speed")));
        assert_eq!(needed, [Viewer, Viewer, Operator]);
        let methods = ["Snapshot", "ReloadConfiguration", "Restart"];
        let needed = methods.map(|name| rules.needed(Call, &node(&format!("Cameras/line1/{name}"))));
        assert_eq!(needed, [Viewer, Admin, Operator]);
        assert_eq!(rules.needed(Call, &MethodId::AcknowledgeableConditionType_Acknowledge.into()), Operator);
        assert_eq!(rules.needed(Call, &MethodId::ConditionType_ConditionRefresh.into()), Viewer);
    }

    #[test]
    fn the_longest_path_that_says_something_wins() {
        let rules = Rules::new(&[
            rule("Tags", [None, Some(Operator), Some(Admin), None]),
            rule("Tags/line1", [Some(Operator), None, Some(Operator), None]),
            rule("Tags/line1/open", [Some(Viewer), Some(Viewer), None, None]),
            rule("Cameras/line1/Snapshot", [None, None, None, Some(Admin)]),
        ]);
        let needed = |path: &str| [Browse, Read, Write].map(|action| rules.needed(action, &node(path)));
        assert_eq!(needed("Tags/other"), [Viewer, Operator, Admin]);
        assert_eq!(needed("Tags/line1"), [Operator, Operator, Operator]);
        assert_eq!(needed("Tags/line1/speed/EURange"), [Operator, Operator, Operator]);
        assert_eq!(needed("Tags/line1/open"), [Viewer, Viewer, Operator]);
        assert_eq!(needed("Tags/line12"), [Viewer, Operator, Admin], "another name, not one below");
        assert_eq!(rules.needed(Call, &node("Cameras/line1/Snapshot")), Admin);
        assert_eq!(rules.needed(Call, &node("Cameras/line2/Snapshot")), Viewer);
    }

    #[test]
    fn nobody_does_anything_with_what_they_do_not_see() {
        let rules = Rules::new(&[rule("Tags", [Some(Admin), Some(Viewer), Some(Viewer), Some(Viewer)])]);
        let needed = [Read, Write, Call].map(|action| rules.needed(action, &node("Tags/x")));
        assert_eq!(needed, [Admin; 3]);
    }

    #[test]
    fn bad_rules_are_said() {
        let said = |path: &str, browse| rule(path, [browse, None, None, None]).check();
        assert!(said("Tags/line1", Some(Viewer)).is_empty());
        assert_eq!(said("Tags/line1", None)[0].0, "path");
        for path in ["", "/Tags", "Tags/", "Tags//x", "Tags / x"] {
            assert_eq!(said(path, Some(Viewer)).len(), 1, "{path:?}");
        }
    }
}
