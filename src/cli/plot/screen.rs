//! The terminal: braille lines with axes, a legend below them, and one line of what the keys do.
//!
//! It is given back as it was when the [`Screen`] goes, also by a panic: the crate sets a hook that does it before the
//! panic's own message is printed.

use super::figure::{self, Figure};
use super::series::Series;
use super::view::View;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Paragraph};
use ratatui::{DefaultTerminal, Frame};
use std::io;

pub(super) struct Screen(DefaultTerminal);

/// Those of the terminal itself, in the order of [`figure::COLOURS`]: every terminal has them, in tints that fit its paper.
const COLOURS: [Color; 8] = [
    Color::LightBlue,
    Color::LightYellow,
    Color::LightGreen,
    Color::LightMagenta,
    Color::Yellow,
    Color::LightRed,
    Color::Blue,
    Color::Gray,
];

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }

    /// Braille dots side by side.
    pub(super) fn columns(&self) -> usize {
        self.0.size().map_or(80, |size| usize::from(size.width)) * 2
    }

    pub(super) fn draw(&mut self, title: &str, view: &View, series: &[Series], figure: &Figure) -> io::Result<()> {
        self.0.draw(|frame| draw(frame, title, view, series, figure)).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn draw(frame: &mut Frame<'_>, title: &str, view: &View, series: &[Series], figure: &Figure) {
    let rows = u16::try_from(series.len()).unwrap_or(u16::MAX).min(frame.area().height / 3);
    let parts = [Constraint::Length(1), Constraint::Min(3), Constraint::Length(rows), Constraint::Length(1)];
    let [above, middle, legend, below] = Layout::vertical(parts).areas(frame.area());
    let state = if view.paused.is_some() { "  PAUSED" } else { "" };
    let head = format!("{title}  {} s, UTC{state}", view.window);
    frame.render_widget(Paragraph::new(head).style(Style::new().add_modifier(Modifier::BOLD)), above);
    frame.render_widget(chart(series, figure), middle);
    frame.render_widget(Paragraph::new(legends(series, figure)), legend);
    frame.render_widget(Paragraph::new(view.message.as_str()).style(Style::new().fg(Color::DarkGray)), below);
}

fn chart<'a>(series: &[Series], figure: &'a Figure) -> Chart<'a> {
    let shown = series.iter().enumerate().filter(|(_, series)| series.is_shown).map(|(index, _)| index);
    let sets = shown.zip(&figure.lines).flat_map(|(index, line)| {
        line.pieces.iter().map(move |piece| {
            let dots = Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line);
            dots.style(COLOURS[index % COLOURS.len()]).data(piece)
        })
    });
    let labels = |ticks: &'a [(f64, String)]| ticks.iter().map(|(_, label)| Span::from(label.as_str()));
    let axis = || Axis::default().style(Color::DarkGray);
    Chart::new(sets.collect())
        .legend_position(None)
        .x_axis(axis().bounds([figure.from, figure.to]).labels(labels(&figure.times)))
        .y_axis(axis().bounds([figure.low, figure.high]).labels(labels(&figure.values)))
}

fn legends<'a>(series: &[Series], figure: &Figure) -> Vec<Line<'a>> {
    let line = |(index, series): (usize, &Series)| {
        let text = figure::legend(series, figure.from, figure.to);
        let (sign, style) = match series.is_shown {
            true => ("━━", Style::new()),
            false => ("  ", Style::new().fg(Color::DarkGray)),
        };
        let number = Span::styled(format!("{:>2} ", index + 1), style);
        Line::from(vec![
            number,
            Span::styled(sign, COLOURS[index % COLOURS.len()]),
            Span::styled(format!(" {text}"), style),
        ])
    };
    series.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::remote::Reading;
    use crate::model::{Status, Value};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn line_axes_and_legend_are_on_any_screen() {
        let mut series = vec![Series::new("Speed".into(), "rpm".into(), 1.0)];
        for second in 0..60 {
            let value = Value::Double(1500.0 + 100.0 * (f64::from(second) / 5.0).sin());
            let reading = Reading { value, status: Status::GOOD, source_time: None, server_time: None };
            series[0].take(&reading, f64::from(second));
        }
        let view = View::new(60.0);
        let figure = view.figure(&series, 60.0, 160);
        for (width, height) in [(80, 24), (200, 60), (20, 5), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, "opc.tcp://plc:4840", &view, &series, &figure)).unwrap();
            let text = terminal.backend().to_string();
            if height >= 24 {
                assert!(text.contains("1600") && text.contains("00:00:15") && text.contains("Speed"), "{text}");
                assert!(text.contains("min 1400") && text.contains(" rpm"), "{text}");
                assert!(text.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count() > 40, "{text}");
            }
        }
    }
}
