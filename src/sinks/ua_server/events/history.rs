//! HistoryRead of events (OPC 10000-11, 6.5.3): the last 200 that there were, also changes of conditions, on Server.
//!
//! They fit one answer, so there are no continuation points. Nothing here survives a restart.

use super::comparisons;
use super::filters::Reader;
use super::notice::Notice;
use crate::hub::Hub;
use crate::sinks::ua_server::access::Access;
use ::opcua::nodes::{Event, ParsedEventFilter};
use ::opcua::server::node_manager::{HistoryNode, RequestContext};
use ::opcua::types::{DateTime, HistoryEvent, HistoryEventFieldList, ReadEventDetails, StatusCode};

/// Answers for each node.
pub(super) fn read(
    hub: &Hub,
    access: &Access,
    namespace: u16,
    context: &RequestContext,
    details: &ReadEventDetails,
    nodes: &mut [&mut HistoryNode],
) -> Result<(), StatusCode> {
    let types = Reader(context.type_tree.read());
    let (_, filter) = ParsedEventFilter::new(comparisons::rewrite(details.filter.clone()), &types);
    let filter = filter?;
    let Span { from, to, is_backward } = span(details)?;
    let mut notices: Vec<Notice> = hub.recent().iter().map(|happening| Notice::of(happening, namespace)).collect();
    let role = access.role(&context.token);
    notices.retain(|notice| (from..=to).contains(notice.time()) && notice.is_allowed(access, role));
    if is_backward {
        notices.reverse();
    }
    // 0 is as many as there are.
    let most = if details.num_values_per_node == 0 { usize::MAX } else { details.num_values_per_node as usize };
    for node in nodes {
        let ours = notices.iter().filter(|notice| notice.is_for(node.node_id()));
        let selected = ours.filter_map(|notice| filter.evaluate(notice, 0, &types));
        let events = selected.take(most).map(|list| HistoryEventFieldList { event_fields: list.event_fields });
        let events: Vec<_> = events.collect();
        node.set_status(if events.is_empty() { StatusCode::GoodNoData } else { StatusCode::Good });
        node.set_result(HistoryEvent { events: Some(events) });
    }
    Ok(())
}

struct Span {
    from: DateTime,
    to: DateTime,
    is_backward: bool,
}

/// Two of start, end and count say what is wanted; an end before the start, or no start, is read backward
/// (OPC 10000-11, 6.5.3.2).
fn span(details: &ReadEventDetails) -> Result<Span, StatusCode> {
    let (start, end) = (details.start_time, details.end_time);
    let is_counted = details.num_values_per_node > 0;
    Ok(match (start.is_null(), end.is_null()) {
        (false, false) if end < start => Span { from: end, to: start, is_backward: true },
        (false, false) => Span { from: start, to: end, is_backward: false },
        (false, true) if is_counted => Span { from: start, to: DateTime::endtimes(), is_backward: false },
        (true, false) if is_counted => Span { from: DateTime::epoch(), to: end, is_backward: true },
        _ => return Err(StatusCode::BadHistoryOperationInvalid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_three_say_what_is_wanted() {
        let (early, late) = (DateTime::ymd(2026, 1, 1), DateTime::ymd(2026, 2, 1));
        let null = DateTime::null();
        let span = |start_time, end_time, num_values_per_node| {
            let details = ReadEventDetails { num_values_per_node, start_time, end_time, ..ReadEventDetails::default() };
            span(&details).map(|span| (span.from, span.to, span.is_backward))
        };
        assert_eq!(span(early, late, 0), Ok((early, late, false)));
        assert_eq!(span(late, early, 0), Ok((early, late, true)));
        assert_eq!(span(early, null, 5), Ok((early, DateTime::endtimes(), false)));
        assert_eq!(span(null, late, 5), Ok((DateTime::epoch(), late, true)));
        for (start, end, count) in [(null, null, 5), (early, null, 0), (null, late, 0)] {
            assert_eq!(span(start, end, count), Err(StatusCode::BadHistoryOperationInvalid));
        }
    }
}
