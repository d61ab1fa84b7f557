//! The terminal: a table of nodes, or the metrics of one; a line above and a line below.
//!
//! It is given back as it was when the [`Screen`] goes, also by a panic: the crate sets a hook that does it before the
//! panic's own message is printed.

use super::super::super::show::{self, Much};
use super::super::host::metric::{Metric, QualityCode};
use super::super::host::{Host, Life, Node, State};
use super::super::words;
use super::rows::{Rows, cut};
use super::view::View;
use crate::model::Timestamp;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};
use std::io;

pub(super) struct Screen {
    terminal: DefaultTerminal,
    /// Somebody may want none (NO_COLOR).
    has_colours: bool,
}

/// What was drawn, for the keys.
#[derive(Default)]
pub(super) struct Drawn {
    pub keys: Vec<String>,
    pub page: usize,
    pub lines: usize,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self { terminal: ratatui::try_init()?, has_colours })
    }

    pub(super) fn draw(&mut self, title: &str, host: &mut Host, view: &View, now: Timestamp) -> io::Result<Drawn> {
        let colours = self.has_colours;
        let mut drawn = Drawn::default();
        self.terminal.draw(|frame| drawn = draw(frame, title, host, view, now, colours))?;
        Ok(drawn)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn draw(frame: &mut Frame<'_>, title: &str, host: &mut Host, view: &View, now: Timestamp, colours: bool) -> Drawn {
    let (width, height) = (usize::from(frame.area().width), usize::from(frame.area().height));
    let page = height.saturating_sub(4).max(1);
    let rows = Rows::new(host, &view.order, &view.filter, now);
    let mut lines = vec![Line::styled(cut(&head(title, &rows, view), width), Modifier::BOLD)];
    let mut drawn = Drawn { keys: Vec::new(), page, lines: 0 };
    match view.inside.as_deref().and_then(|key| host.node(key)) {
        Some(node) => drawn.lines = inside(&mut lines, node, view, now, width, page, colours),
        None => {
            lines.push(Line::from(cut(&beside(host), width)));
            table(&mut lines, &rows, view, width, page, colours);
        }
    }
    drawn.keys = rows.rows.into_iter().map(|row| row.key).collect();
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), Line::default());
    let below = match (&view.message, view.is_typing) {
        (_, true) => {
            let filter = if view.inside.is_some() { &view.inner_filter } else { &view.filter };
            format!("/{}_   {}", show::printable(filter), view.keys())
        }
        (Some(message), _) => show::printable(message),
        (None, _) => view.keys().to_owned(),
    };
    lines.push(Line::styled(cut(&below, width), tint(colours, Color::DarkGray)));
    frame.render_widget(Paragraph::new(lines), frame.area());
    drawn
}

fn head(title: &str, rows: &Rows, view: &View) -> String {
    let [alarm, dead, stale, online] = rows.counts;
    let all: usize = rows.counts.iter().sum();
    let filter = match view.filter.is_empty() {
        true => String::new(),
        false => format!("  {} like /{}", rows.rows.len(), show::printable(&view.filter)),
    };
    let nodes = if all == 1 { "node" } else { "nodes" };
    format!("{title}  {all} {nodes}: {alarm} alarm, {dead} dead, {stale} stale, {online} online{filter}")
}

/// Host applications, and what could not be shown.
fn beside(host: &Host) -> String {
    let mut parts: Vec<String> = host
        .hosts()
        .map(|(name, primary)| {
            format!("host {} {}", show::printable(name), if primary.is_online { "online" } else { "OFFLINE" })
        })
        .collect();
    for (count, what) in [
        (host.counts.garbage, "messages are no Sparkplug"),
        (host.counts.left_out, "messages left out: too many nodes"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join("  ")
}

fn tint(has_colours: bool, colour: Color) -> Style {
    if has_colours { Style::new().fg(colour) } else { Style::new() }
}

fn of_state(state: State, colours: bool) -> Style {
    match state {
        State::Alarm => tint(colours, Color::LightRed).add_modifier(Modifier::BOLD),
        State::Dead => tint(colours, Color::Red),
        State::Stale => tint(colours, Color::Yellow),
        State::Online => tint(colours, Color::Green),
    }
}

fn table(lines: &mut Vec<Line<'static>>, rows: &Rows, view: &View, width: usize, page: usize, colours: bool) {
    let widths = rows.widths(Some(width));
    lines.push(Line::styled(cut(&rows.head(&widths, &view.order), width), Modifier::UNDERLINED));
    let place = rows.rows.iter().position(|row| Some(&row.key) == view.chosen.as_ref());
    // The chosen one in the middle, unless the table ends before.
    let first = place.unwrap_or(0).saturating_sub(page / 2).min(rows.rows.len().saturating_sub(page));
    for (index, row) in rows.rows.iter().enumerate().skip(first).take(page) {
        let text = cut(&rows.line(row, &widths), width);
        let state: String = text.chars().take(widths[0]).collect();
        let rest: String = text.chars().skip(widths[0]).collect();
        let line = Line::from(vec![Span::styled(state, of_state(row.state, colours)), Span::raw(rest)]);
        let is_chosen = Some(index) == place;
        lines.push(if is_chosen { line.style(Modifier::REVERSED) } else { line });
    }
}

/// How many lines there are in all.
fn inside(
    lines: &mut Vec<Line<'static>>,
    node: &Node,
    view: &View,
    now: Timestamp,
    width: usize,
    page: usize,
    colours: bool,
) -> usize {
    let life = match node.life {
        Life::Heard => "its birth was not heard",
        Life::Born => "born",
        Life::Missed => "messages were missed since its birth",
        Life::Dead => "dead",
    };
    let mut about = format!("{}: {life}", show::printable(&node.key()));
    if let Some(born) = node.born {
        about.push_str(&format!(", born {} ago", words::age(born, now)));
    }
    for (count, what) in [
        (node.missed, "messages missed"),
        (node.faulty, "faulty"),
        (node.left_out(), "metrics left out: no memory"),
        (node.lost().len() as u64, "devices or sources lost"),
    ] {
        if count > 0 {
            about.push_str(&format!(", {count} {what}"));
        }
    }
    lines.push(Line::from(cut(&about, width)));
    let filter = view.inner_filter.to_lowercase();
    let fits = |device: Option<&str>, metric: &Metric| {
        let has = |text: &str| text.to_lowercase().contains(&filter);
        filter.is_empty() || has(&metric.name) || device.is_some_and(has)
    };
    let shown: Vec<_> = node.each().filter(|(device, metric)| fits(device.map(|d| &**d), metric)).collect();
    let names = shown.iter().map(|(device, metric)| name(device.map(|d| &**d), metric));
    let widest = names.map(|name| name.chars().count()).max().unwrap_or(0).clamp(6, (width / 2).max(6));
    let value_width = width.saturating_sub(widest + 16).max(4);
    let heading = format!("{:<widest$} {:<value_width$} {:<6} {:>7}", "METRIC", "VALUE", "IS", "AGE");
    lines.push(Line::styled(cut(&heading, width), Modifier::UNDERLINED));
    for (device, metric) in shown.iter().skip(view.top).take(page) {
        let device = device.map(|device| &**device);
        let quality = node.quality(device, metric.quality);
        let mut value = words::held(metric, Much::LINE);
        for more in [&metric.unit, &metric.reason].into_iter().flatten() {
            value.push(' ');
            value.push_str(&show::printable(more));
        }
        let age = metric.time.map(|time| words::age(time, now)).unwrap_or_default();
        let style = match quality {
            QualityCode::Bad => of_state(State::Alarm, colours),
            QualityCode::Stale => of_state(State::Stale, colours),
            QualityCode::Good => Style::new(),
        };
        let text = format!(
            "{:<widest$} {:<value_width$} {:<6} {age:>7}",
            cut(&name(device, metric), widest),
            cut(&value, value_width),
            words::quality(quality)
        );
        lines.push(Line::styled(cut(&text, width), style));
    }
    shown.len()
}

fn name(device: Option<&str>, metric: &Metric) -> String {
    match device {
        Some(device) => format!("{}/{}", show::printable(device), show::printable(&metric.name)),
        None => show::printable(&metric.name),
    }
}
