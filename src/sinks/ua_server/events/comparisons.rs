//! Comparisons in where clauses that the crate cannot do, done here.
//!
//!     EventFilter as it comes ──Rewriter──► its comparisons of what is no number: `<ours> == true` ──► crate
//!     event ◄── get_field(<ours>) ── crate       the browse path of <ours> holds the comparison, encoded
//!
//! The crate (0.19) compares numbers and Booleans only, so `EventType in [...]`, which is how common clients ask for a type,
//! or `SourceName == "line1"` is never true; and its Like takes `_` for what may be missing. It decodes filters with
//! type loaders, of which the first that knows a type wins; this one stands first. A null browse path is made an
//! empty one, which the crate would else refuse (the ConditionId: OPC 10000-9, 5.5.2). And what is said about the queue or a
//! refresh passes every where clause (OPC 10000-4, 7.22.3; 10000-9, 4.5), by one more element in front of it.

use crate::sinks::ua_server::gate;
use ::opcua::nodes::Event;
use ::opcua::server::ServerInfo;
use ::opcua::sync::RwLock;
use ::opcua::types::{
    AttributeId, BinaryDecodable, BinaryEncodable, ContentFilterElement, Context, ContextOwned, DecodingOptions,
    DynEncodable, ElementOperand, EncodingResult, EventFilter, FallbackTypeLoader, FilterOperator, GeneratedTypeLoader,
    LiteralOperand, NamespaceMap, NodeId, ObjectId, ObjectTypeId, Operand, QualifiedName, SimpleAttributeOperand,
    TypeLoader, TypeLoaderCollection, TypeLoaderPriority, Variant, VariantScalarTypeId,
};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::io::Read;
use std::sync::LazyLock;

/// No server has so many namespaces; a browse path in this one is a comparison.
const OURS: u16 = u16::MAX;
/// Whether an event passes every where clause.
const PASSES: &str = "passes";
/// Of a where clause, at most.
const ELEMENTS: usize = 256;
/// No server has so many namespaces either: nobody has a field there.
const NOBODYS: u16 = OURS - 1;

/// Has filters decoded here from the next connection on.
pub(super) fn install(info: &ServerInfo) {
    let mut loaders = TypeLoaderCollection::new_empty();
    loaders.add_type_loader(Rewriter);
    loaders.add_type_loader(GeneratedTypeLoader);
    loaders.add_type_loader(FallbackTypeLoader);
    *info.type_loaders.write() = loaders;
}

struct Rewriter;

impl TypeLoader for Rewriter {
    fn load_from_binary(
        &self,
        node_id: &NodeId,
        stream: &mut dyn Read,
        context: &Context<'_>,
        _: Option<usize>,
    ) -> Option<EncodingResult<Box<dyn DynEncodable>>> {
        let is_filter = node_id.as_object_id().is_ok_and(|id| id == ObjectId::EventFilter_Encoding_DefaultBinary);
        is_filter.then(|| EventFilter::decode(stream, context).map(|filter| Box::new(rewrite(filter)) as _))
    }

    fn priority(&self) -> TypeLoaderPriority {
        TypeLoaderPriority::Core
    }
}

/// A filter as the crate evaluates it right.
pub(super) fn rewrite(mut filter: EventFilter) -> EventFilter {
    if let Some(elements) = &mut filter.where_clause.elements
        && is_too_much(elements)
    {
        // Without operands each is refused (BadFilterOperandCountMismatch), and nothing is left to walk through.
        elements.iter_mut().for_each(|element| element.filter_operands = None);
    }
    for clause in filter.select_clauses.iter_mut().flatten() {
        disown(clause.browse_path.get_or_insert_default());
    }
    for operand in
        filter.where_clause.elements.iter_mut().flatten().flat_map(|it| it.filter_operands.iter_mut().flatten())
    {
        if let Ok(Operand::SimpleAttributeOperand(mut field)) = Operand::try_from(operand.clone())
            && field.browse_path.as_mut().is_some_and(|path| disown(path))
        {
            *operand = Operand::from(field).into();
        }
    }
    for element in filter.where_clause.elements.iter_mut().flatten() {
        if is_ours_to_do(element)
            && let Some(path) = pack(element)
        {
            *element = is_true(path);
        }
    }
    if let Some(elements) = &mut filter.where_clause.elements {
        let_pass(elements);
    }
    filter
}

/// The crate walks an element once for each way that leads to it, and the ways double with each level if each element refers
/// twice to the next: so one way to each.
fn is_too_much(elements: &[ContentFilterElement]) -> bool {
    let mut seen = HashSet::new();
    let mut operands = elements.iter().flat_map(|element| element.filter_operands.iter().flatten());
    elements.len() > ELEMENTS
        || operands
            .any(|operand| operand.inner_as::<ElementOperand>().is_some_and(|referred| !seen.insert(referred.index)))
}

/// A path that a client made up in our namespace is not one of ours, but a field that no event has; true if it was one.
fn disown(path: &mut [QualifiedName]) -> bool {
    let mut is_changed = false;
    for name in path.iter_mut().filter(|name| name.namespace_index == OURS) {
        name.namespace_index = NOBODYS;
        is_changed = true;
    }
    is_changed
}

/// `<ours> == true`
fn is_true(ours: QualifiedName) -> ContentFilterElement {
    let ours = SimpleAttributeOperand {
        type_definition_id: ObjectTypeId::BaseEventType.into(),
        browse_path: Some(vec![ours]),
        attribute_id: AttributeId::Value as u32,
        ..SimpleAttributeOperand::default()
    };
    ContentFilterElement::from((
        FilterOperator::Equals,
        vec![Operand::from(ours), Operand::from(LiteralOperand::from(true))],
    ))
}

/// Makes of a clause `clause or <passes>`. What is wrong with a clause is left as it is, so that the crate refuses it by the
/// places that the client knows.
fn let_pass(elements: &mut Vec<ContentFilterElement>) {
    let is_sound = |element: &ContentFilterElement| {
        let Some(operands) = operands(element) else { return false };
        let is_inside = |operand: &Operand| match operand {
            // Nothing refers back to the first.
            Operand::ElementOperand(other) => (1..elements.len()).contains(&(other.index as usize)),
            _ => true,
        };
        is_counted(element.filter_operator, operands.len()) && operands.iter().all(is_inside)
    };
    if elements.is_empty() || !elements.iter().all(is_sound) {
        return;
    }
    let at = |index: usize| Operand::from(ElementOperand { index: index as u32 });
    let either = ContentFilterElement::from((FilterOperator::Or, vec![at(elements.len()), at(elements.len() + 1)]));
    let first = std::mem::replace(&mut elements[0], either);
    elements.extend([first, is_true(QualifiedName::new(OURS, PASSES))]);
}

/// Between fields and literals, and not of numbers alone. What is wrong in another way is left for the crate to refuse.
fn is_ours_to_do(element: &ContentFilterElement) -> bool {
    let Some(operands) = operands(element) else { return false };
    let is_simple = |operand: &Operand| match operand {
        Operand::LiteralOperand(_) => true,
        Operand::SimpleAttributeOperand(field) => AttributeId::from_u32(field.attribute_id).is_ok(),
        _ => false,
    };
    let is_no_number = |operand: &Operand| matches!(operand, Operand::LiteralOperand(LiteralOperand { value }) if number(value).is_none());
    let is_comparison = matches!(
        element.filter_operator,
        FilterOperator::Equals
            | FilterOperator::GreaterThan
            | FilterOperator::LessThan
            | FilterOperator::GreaterThanOrEqual
            | FilterOperator::LessThanOrEqual
            | FilterOperator::Like
            | FilterOperator::Between
            | FilterOperator::InList
    );
    is_comparison
        && is_counted(element.filter_operator, operands.len())
        && operands.iter().all(is_simple)
        && operands.iter().any(is_no_number)
}

/// OPC 10000-4, 7.7.3, as far as the crate evaluates it.
fn is_counted(operator: FilterOperator, operands: usize) -> bool {
    match operator {
        FilterOperator::IsNull | FilterOperator::Not | FilterOperator::OfType => operands == 1,
        FilterOperator::Between => operands == 3,
        FilterOperator::InList => operands >= 2,
        FilterOperator::InView | FilterOperator::RelatedTo => false,
        _ => operands == 2,
    }
}

fn operands(element: &ContentFilterElement) -> Option<Vec<Operand>> {
    element.filter_operands.iter().flatten().map(|operand| Operand::try_from(operand.clone()).ok()).collect()
}

/// As hexadecimal digits, because a name is text.
fn pack(element: &ContentFilterElement) -> Option<QualifiedName> {
    let context = ContextOwned::default();
    let mut bytes = Vec::new();
    element.encode(&mut bytes, &context.context()).ok()?;
    Some(QualifiedName::new(OURS, bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

fn unpack(path: &[QualifiedName]) -> Option<ContentFilterElement> {
    let [name] = path else { return None };
    let digits = name.name.as_ref().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = digits.chunks(2).map(byte).collect::<Option<_>>()?;
    /// With the guard that all that clients send goes through.
    static CONTEXT: LazyLock<ContextOwned> = LazyLock::new(|| {
        let loaders = RwLock::new(TypeLoaderCollection::new());
        gate::guard(&loaders);
        ContextOwned::new(NamespaceMap::new(), loaders.into_inner(), DecodingOptions::default())
    });
    let context = &*CONTEXT;
    ContentFilterElement::decode(&mut bytes.as_slice(), &context.context()).ok()
}

/// What a field of ours is for an event; `None` if it is another's field.
pub(super) fn value(path: &[QualifiedName], event: &dyn Event, passes: bool) -> Option<Variant> {
    let first = path.first()?;
    if first.namespace_index != OURS {
        return None;
    }
    if first.name.as_ref() == PASSES {
        return Some(passes.into());
    }
    Some(unpack(path).and_then(|element| compare(&element, event)).map_or(Variant::Empty, Variant::from))
}

fn compare(element: &ContentFilterElement, event: &dyn Event) -> Option<bool> {
    let value = |operand: Operand| match operand {
        Operand::LiteralOperand(literal) => Some(literal.value),
        Operand::SimpleAttributeOperand(field) => {
            let attribute = AttributeId::from_u32(field.attribute_id).ok()?;
            let path = field.browse_path.unwrap_or_default();
            // Not a comparison inside of a comparison: that could go on for ever.
            let is_field = path.iter().all(|name| name.namespace_index != OURS);
            is_field.then(|| event.get_field(&field.type_definition_id, attribute, &field.index_range, &path))
        }
        _ => None,
    };
    let values: Vec<Variant> = operands(element)?.into_iter().map(value).collect::<Option<_>>()?;
    let (first, others) = values.split_first()?;
    let order = |other: Option<&Variant>| order(first, other?);
    use FilterOperator as Operator;
    Some(match element.filter_operator {
        Operator::Equals | Operator::InList => others.iter().any(|other| is_equal(first, other)),
        Operator::GreaterThan => order(others.first()) == Some(Ordering::Greater),
        Operator::LessThan => order(others.first()) == Some(Ordering::Less),
        Operator::GreaterThanOrEqual => order(others.first()).is_some_and(Ordering::is_ge),
        Operator::LessThanOrEqual => order(others.first()).is_some_and(Ordering::is_le),
        Operator::Between => {
            order(others.first()).is_some_and(Ordering::is_ge) && order(others.get(1)).is_some_and(Ordering::is_le)
        }
        Operator::Like => is_like(&text(first)?, &text(others.first()?)?),
        _ => return None,
    })
}

fn is_equal(one: &Variant, other: &Variant) -> bool {
    match (one, other) {
        // What a field is not, equals nothing.
        (Variant::Empty, _) | (_, Variant::Empty) => false,
        (Variant::NodeId(one), Variant::ExpandedNodeId(other)) => **one == other.node_id,
        _ => one == other || order(one, other) == Some(Ordering::Equal),
    }
}

fn order(one: &Variant, other: &Variant) -> Option<Ordering> {
    if let (Some(one), Some(other)) = (number(one), number(other)) {
        return one.partial_cmp(&other);
    }
    if let (Variant::DateTime(one), Variant::DateTime(other)) = (one, other) {
        return Some(one.cmp(other));
    }
    Some(text(one)?.cmp(&text(other)?))
}

/// Of a LocalizedText its text.
fn text(value: &Variant) -> Option<String> {
    match value {
        Variant::String(text) => text.value().clone(),
        Variant::LocalizedText(text) => text.text.value().clone(),
        _ => None,
    }
}

fn number(value: &Variant) -> Option<f64> {
    match value {
        Variant::Empty | Variant::String(_) => None,
        value => match value.convert(VariantScalarTypeId::Double) {
            Variant::Double(number) => Some(number),
            _ => None,
        },
    }
}

/// OPC 10000-4, 7.7.3: `%` is any text, `_` one character, `[abc]` one of these, `[^abc]` none of these, `\` takes the next
/// character as it is.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    // Where the pattern may stand, for each place in the text: no backtracking, so no pattern takes for ever.
    let mut places = vec![false; text.len() + 1];
    places[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        if pattern[at] == '%' {
            let first = places.iter().position(|may| *may).unwrap_or(places.len());
            places[first..].fill(true);
            at += 1;
            continue;
        }
        let (fits, after) = one_character(&pattern, at);
        for place in (0..text.len()).rev() {
            places[place + 1] = places[place] && fits(text[place]);
        }
        places[0] = false;
        at = after;
    }
    places[text.len()]
}

/// What fits the part of a pattern that begins at `at`, and where the next begins.
fn one_character(pattern: &[char], at: usize) -> (Box<dyn Fn(char) -> bool>, usize) {
    let rest = &pattern[at + 1..];
    match pattern[at] {
        '_' => (Box::new(|_| true), at + 1),
        '\\' if !rest.is_empty() => {
            let wanted = rest[0];
            (Box::new(move |found| found == wanted), at + 2)
        }
        '[' if rest.contains(&']') => {
            let end = rest.iter().position(|c| *c == ']').unwrap_or(rest.len());
            let is_none = rest.first() == Some(&'^');
            let set = rest[usize::from(is_none)..end].to_vec();
            (Box::new(move |found| is_in(&set, found) != is_none), at + end + 2)
        }
        wanted => (Box::new(move |found| found == wanted), at + 1),
    }
}

/// Also ranges, as in `a-z`.
fn is_in(set: &[char], found: char) -> bool {
    set.contains(&found) || set.windows(3).any(|range| range[1] == '-' && (range[0]..=range[2]).contains(&found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::hub::Hub;
    use crate::model::EventKind;
    use crate::sinks::ua_server::events::notice::Notice;
    use ::opcua::types::ContentFilter;

    fn field(name: &str) -> Operand {
        let (kind, value) = (ObjectTypeId::BaseEventType, AttributeId::Value);
        Operand::from(SimpleAttributeOperand::new(kind, name, value, ::opcua::types::NumericRange::None))
    }

    fn literal(value: impl Into<Variant>) -> Operand {
        Operand::from(LiteralOperand::from(value.into()))
    }

    fn notice() -> Notice {
        let hub = Hub::new(Clock::real());
        hub.raise(EventKind::CameraNoSignal, "cameras/line1", "dark");
        Notice::of(&hub.recent()[0], 2)
    }

    /// As the crate would ask, after the filter was rewritten. `None`: it was left as it is.
    fn asked(operator: FilterOperator, operands: Vec<Operand>) -> Option<Variant> {
        let elements = Some(vec![ContentFilterElement::from((operator, operands))]);
        let filter = EventFilter { select_clauses: None, where_clause: ContentFilter { elements } };
        // The first stands behind what was put in front.
        let mut elements = rewrite(filter).where_clause.elements.unwrap();
        let element = elements.remove(elements.len().saturating_sub(2));
        match operands_of(&element) {
            Operand::SimpleAttributeOperand(ours) => value(&ours.browse_path.unwrap(), &notice(), false),
            _ => None,
        }
    }

    fn operands_of(element: &ContentFilterElement) -> Operand {
        operands(element).unwrap().remove(0)
    }

    #[test]
    fn what_is_no_number_is_compared_here() {
        use FilterOperator as Operator;
        let kind = |name: &str| literal(NodeId::new(2, name));
        let yes = Some(Variant::from(true));
        let no = Some(Variant::from(false));
        let ours = kind("CameraNoSignalEventType");
        assert_eq!(asked(Operator::InList, vec![field("EventType"), kind("x"), ours.clone()]), yes);
        assert_eq!(asked(Operator::Equals, vec![field("EventType"), kind("x")]), no);
        assert_eq!(asked(Operator::Equals, vec![field("SourceName"), literal("line1")]), yes);
        assert_eq!(asked(Operator::Equals, vec![field("Message"), literal("dark")]), yes);
        assert_eq!(asked(Operator::Like, vec![field("Message"), literal("d_r%")]), yes);
        assert_eq!(asked(Operator::Equals, vec![field("Nothing"), literal("dark")]), no);
        let now = literal(::opcua::types::DateTime::epoch());
        assert_eq!(asked(Operator::GreaterThan, vec![field("Time"), now]), yes);
        let numbers = vec![field("Severity"), literal(500_u16)];
        assert_eq!(asked(Operator::GreaterThan, numbers), None, "the crate can do that");
        assert_eq!(asked(Operator::Equals, vec![field("SourceName")]), None, "the crate refuses that");
    }

    #[test]
    fn what_is_about_the_queue_passes_and_what_is_wrong_stays_where_it_is() {
        let clause = |elements: Vec<ContentFilterElement>| {
            let where_clause = ContentFilter { elements: Some(elements) };
            rewrite(EventFilter { select_clauses: None, where_clause }).where_clause.elements.unwrap()
        };
        let dark = || ContentFilterElement::from((FilterOperator::Equals, vec![field("Severity"), literal(1_u16)]));
        let not =
            |index| ContentFilterElement::from((FilterOperator::Not, vec![Operand::from(ElementOperand { index })]));
        assert!(clause(vec![]).is_empty(), "all pass");
        for wrong in [vec![not(7)], vec![not(0)], vec![dark(), ContentFilterElement::default()]] {
            assert_eq!(clause(wrong.clone()), wrong);
        }
        let sound = clause(vec![not(1), dark()]);
        assert_eq!((sound.len(), sound[0].filter_operator), (4, FilterOperator::Or));
        assert_eq!((&sound[1], &sound[2]), (&dark(), &not(1)));
        let passes = [QualifiedName::new(OURS, PASSES)];
        assert_eq!(value(&passes, &notice(), true), Some(true.into()));
    }

    #[test]
    fn a_clause_that_would_take_for_ever_is_refused() {
        let and = |one, other| {
            let at = |index| Operand::from(ElementOperand { index });
            ContentFilterElement::from((FilterOperator::And, vec![at(one), at(other)]))
        };
        let not = || ContentFilterElement::from((FilterOperator::Not, vec![literal(true)]));
        let clause = |elements: Vec<ContentFilterElement>| {
            let where_clause = ContentFilter { elements: Some(elements) };
            let filter = rewrite(EventFilter { select_clauses: None, where_clause });
            let types = ::opcua::nodes::DefaultTypeTree::new();
            ::opcua::nodes::ParsedEventFilter::new(filter, &types).1.map(|_| ())
        };
        let mut doubling: Vec<_> = (1..60).map(|next| and(next, next)).collect();
        doubling.push(not());
        assert_eq!(clause(doubling), Err(::opcua::types::StatusCode::BadEventFilterInvalid));
        assert!(clause(vec![not(); ELEMENTS + 1]).is_err());
        assert_eq!(clause(vec![and(1, 2), not(), not()]), Ok(()));
        assert_eq!(clause(vec![not(); ELEMENTS]), Ok(()));
    }

    #[test]
    fn a_path_that_a_client_sends_is_none_of_ours() {
        let equal = || ContentFilterElement::from((FilterOperator::Equals, vec![literal("a"), literal("a")]));
        let ours = SimpleAttributeOperand {
            browse_path: Some(vec![pack(&equal()).unwrap()]),
            attribute_id: AttributeId::Value as u32,
            ..SimpleAttributeOperand::default()
        };
        let operands = [Operand::from(ours.clone()), literal(true)];
        let elements = Some(vec![ContentFilterElement::from((FilterOperator::IsNull, operands[..1].to_vec()))]);
        let where_clause = ContentFilter { elements };
        let filter = rewrite(EventFilter { select_clauses: Some(vec![ours]), where_clause });
        let selected = filter.select_clauses.unwrap().remove(0).browse_path.unwrap();
        assert_eq!(value(&selected, &notice(), false), None);
        let Operand::SimpleAttributeOperand(field) = operands_of(&filter.where_clause.elements.unwrap()[1]) else {
            panic!("it stays a field");
        };
        assert_eq!(value(&field.browse_path.unwrap(), &notice(), false), None);
    }

    #[test]
    fn a_path_that_somebody_made_up_is_null() {
        for name in ["", "0", "zz", "00112233", &"ff".repeat(100)] {
            assert_eq!(value(&[QualifiedName::new(OURS, name)], &notice(), false), Some(Variant::Empty), "{name}");
        }
        // A comparison with itself in it.
        let inner =
            pack(&ContentFilterElement::from((FilterOperator::Equals, vec![literal("a"), literal("a")]))).unwrap();
        let nested = SimpleAttributeOperand {
            browse_path: Some(vec![inner]),
            attribute_id: AttributeId::Value as u32,
            ..SimpleAttributeOperand::default()
        };
        let outer = ContentFilterElement::from((FilterOperator::Equals, vec![Operand::from(nested), literal("a")]));
        assert_eq!(value(&[pack(&outer).unwrap()], &notice(), false), Some(Variant::Empty));
    }

    #[test]
    fn like_is_as_the_standard_has_it() {
        for (text, pattern, is) in [
            ("main", "main%", true),
            ("remain", "main%", false),
            ("remain", "%main", true),
            ("camera line1", "%line_", true),
            ("camera line", "%line_", false),
            ("abcd", "ab[cd]_", true),
            ("abed", "ab[^cd]d", true),
            ("ab7", "ab[0-9]", true),
            ("50%", "50\\%", true),
            ("500", "50\\%", false),
            ("", "", true),
            ("", "%", true),
            ("a", "", false),
            ("[a", "[a", true),
        ] {
            assert_eq!(is_like(text, pattern), is, "{text} like {pattern}");
        }
        assert!(!is_like(&"a".repeat(10_000), &format!("{}b", "a%".repeat(200))));
    }
}
