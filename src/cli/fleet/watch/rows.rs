//! The table of nodes: what stands in it, in which order, and how wide its columns are.

use super::super::super::show;
use super::super::host::{Host, State};
use super::super::words;
use crate::model::Timestamp;
use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Column {
    #[default]
    State,
    Node,
    Version,
    Uptime,
    Queue,
    Cameras,
    Lost,
    Bad,
    Seen,
}

impl Column {
    pub(super) const ALL: [Self; 9] = [
        Self::State,
        Self::Node,
        Self::Version,
        Self::Uptime,
        Self::Queue,
        Self::Cameras,
        Self::Lost,
        Self::Bad,
        Self::Seen,
    ];

    fn head(self) -> &'static str {
        match self {
            Self::State => "STATE",
            Self::Node => "NODE",
            Self::Version => "VERSION",
            Self::Uptime => "UPTIME",
            Self::Queue => "QUEUE",
            Self::Cameras => "CAMS",
            Self::Lost => "LOST",
            Self::Bad => "BAD",
            Self::Seen => "SEEN",
        }
    }

    /// Wider than this it is cut, so that the node's name has a place on 80 columns.
    fn widest(self) -> usize {
        match self {
            Self::Node => usize::MAX,
            Self::Version => 12,
            _ => 8,
        }
    }

    fn is_number(self) -> bool {
        !matches!(self, Self::State | Self::Node | Self::Version)
    }

    pub(super) fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }
}

/// Alarms are first unless somebody wants another order; nodes that are alike stand by their names.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Order {
    pub by: Column,
    pub is_reversed: bool,
}

pub(in super::super) struct Row {
    pub key: String,
    pub state: State,
    version: String,
    uptime: Option<f64>,
    queue: Option<f64>,
    cameras: String,
    cameras_lost: usize,
    lost: usize,
    bad: usize,
    seen: Timestamp,
}

pub(in super::super) struct Rows {
    pub rows: Vec<Row>,
    /// Of all nodes, also those that the filter hides: alarm, dead, stale, online.
    pub counts: [usize; 4],
    now: Timestamp,
}

impl Rows {
    /// Those whose name, version or state has `filter` in it.
    pub(in super::super) fn new(host: &mut Host, order: &Order, filter: &str, now: Timestamp) -> Self {
        host.forget(now);
        let filter = filter.to_lowercase();
        let mut counts = [0; 4];
        let mut rows = Vec::new();
        for node in host.nodes_mut() {
            let state = node.state();
            counts[state as usize] += 1;
            let summary = node.summary();
            let version = summary.version.as_deref().unwrap_or_default();
            let row = Row {
                version: show::printable(version),
                uptime: summary.uptime,
                queue: summary.queue,
                cameras: words::cameras(summary),
                cameras_lost: summary.cameras_lost,
                lost: summary.lost,
                bad: summary.bad,
                state,
                seen: node.heard,
                key: node.key(),
            };
            let has = |text: &str| text.to_lowercase().contains(&filter);
            if filter.is_empty() || has(&row.key) || has(&row.version) || has(state.name()) {
                rows.push(row);
            }
        }
        rows.sort_by(|a, b| {
            let order_of_both = a.by(order.by, b);
            if order.is_reversed { order_of_both.reverse() } else { order_of_both }
        });
        Self { rows, counts, now }
    }

    /// Of each column; those of `total` if there is a limit.
    pub(super) fn widths(&self, total: Option<usize>) -> [usize; 9] {
        // With a place for the sign of the order.
        let mut widths = Column::ALL.map(|column| column.head().len() + usize::from(total.is_some()));
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row.cells(self.now)) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for (width, column) in widths.iter_mut().zip(Column::ALL) {
            *width = (*width).min(column.widest());
        }
        if let Some(total) = total {
            let node = Column::Node as usize;
            let others: usize = widths.iter().sum::<usize>() - widths[node] + widths.len() - 1;
            widths[node] = widths[node].min(total.saturating_sub(others)).max(4);
        }
        widths
    }

    pub(super) fn head(&self, widths: &[usize; 9], order: &Order) -> String {
        let cells = Column::ALL.map(|column| match (column == order.by, order.is_reversed) {
            (false, _) => column.head().to_owned(),
            // The sort shows where there is a place for it.
            (true, false) => format!("{}▾", column.head()),
            (true, true) => format!("{}▴", column.head()),
        });
        line(&cells, widths)
    }

    pub(super) fn line(&self, row: &Row, widths: &[usize; 9]) -> String {
        line(&row.cells(self.now), widths)
    }

    /// The table as text.
    pub(in super::super) fn lines(&self) -> Vec<String> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let widths = self.widths(None);
        let head = line(&Column::ALL.map(|column| column.head().to_owned()), &widths);
        let rows = self.rows.iter().map(|row| self.line(row, &widths));
        std::iter::once(head).chain(rows).map(|line| line.trim_end().to_owned()).collect()
    }
}

fn line(cells: &[String; 9], widths: &[usize; 9]) -> String {
    let cells = cells.iter().zip(widths).zip(Column::ALL).map(|((cell, width), column)| {
        let cell = cut(cell, *width);
        if column.is_number() { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    });
    cells.collect::<Vec<_>>().join(" ")
}

/// To so many characters.
pub(super) fn cut(text: &str, width: usize) -> String {
    match text.chars().count() {
        length if length <= width => text.to_owned(),
        _ if width == 0 => String::new(),
        _ => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

impl Row {
    fn cells(&self, now: Timestamp) -> [String; 9] {
        let number = |count: usize| if count == 0 { String::new() } else { count.to_string() };
        [
            self.state.name().to_owned(),
            show::printable(&self.key),
            self.version.clone(),
            self.uptime.map(words::span).unwrap_or_default(),
            words::count(self.queue),
            self.cameras.clone(),
            number(self.lost),
            number(self.bad),
            words::age(self.seen, now),
        ]
    }

    fn by(&self, column: Column, other: &Self) -> Ordering {
        // What there is most of is what somebody looks for.
        let most = |a: Option<f64>, b: Option<f64>| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0));
        let order = match column {
            Column::State => self.state.cmp(&other.state),
            Column::Node => Ordering::Equal,
            Column::Version => self.version.cmp(&other.version),
            Column::Uptime => most(other.uptime, self.uptime),
            Column::Queue => most(self.queue, other.queue),
            Column::Cameras => other.cameras_lost.cmp(&self.cameras_lost),
            Column::Lost => other.lost.cmp(&self.lost),
            Column::Bad => other.bad.cmp(&self.bad),
            Column::Seen => self.seen.cmp(&other.seen),
        };
        order.then_with(|| self.key.cmp(&other.key))
    }
}
