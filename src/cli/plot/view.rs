//! What the keys change: the window, the pause, the scale, which lines are shown.

use super::figure::Figure;
use super::save::Kind;
use super::series::Series;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Seconds; more than a day is not kept.
const WINDOW: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;

pub(super) struct View {
    /// In seconds.
    pub window: f64,
    /// The right edge, while it stands still.
    pub paused: Option<f64>,
    /// The range of values, while it does not follow the lines.
    pub scale: Option<(f64, f64)>,
    /// The last line of the screen.
    pub message: String,
}

/// What a key asks for that the view itself cannot do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    Csv,
    Svg,
    Png,
}

impl Wish {
    pub(super) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Csv => Some(Kind::Csv),
            Self::Svg => Some(Kind::Svg),
            Self::Png => Some(Kind::Png),
            Self::Nothing | Self::Quit => None,
        }
    }
}

pub(super) const KEYS: &str = "q quit  p pause  +/- window  a autoscale  1-9 lines  c/s/g save CSV/SVG/PNG";

impl View {
    pub(super) fn new(window: f64) -> Self {
        let window = window.clamp(*WINDOW.start(), *WINDOW.end());
        Self { window, paused: None, scale: None, message: KEYS.into() }
    }

    pub(super) fn figure(&self, series: &[Series], now: f64, columns: usize) -> Figure {
        let to = self.paused.unwrap_or(now);
        Figure::new(series, to - self.window, to, self.scale, columns)
    }

    pub(super) fn key(&mut self, key: KeyEvent, series: &mut [Series], now: f64) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Wish::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('c') => return Wish::Csv,
            KeyCode::Char('s') => return Wish::Svg,
            KeyCode::Char('g') => return Wish::Png,
            KeyCode::Char('p' | ' ') => {
                self.paused = if self.paused.is_some() { None } else { Some(now) };
                KEYS.clone_into(&mut self.message);
            }
            // Shorter and longer: more and less of each second.
            KeyCode::Char('+' | '=') => self.widen(0.5),
            KeyCode::Char('-') => self.widen(2.0),
            KeyCode::Char('a') => {
                let figure = self.figure(series, now, 1);
                self.scale = if self.scale.is_some() { None } else { Some((figure.low, figure.high)) };
                self.message = match self.scale {
                    Some(_) => "the scale stays as it is; a lets it follow the lines again".into(),
                    None => "the scale follows the lines".into(),
                };
            }
            KeyCode::Char(digit @ '1'..='9') => {
                if let Some(series) = series.get_mut(digit as usize - '1' as usize) {
                    series.is_shown = !series.is_shown;
                }
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn widen(&mut self, factor: f64) {
        self.window = (self.window * factor).clamp(*WINDOW.start(), *WINDOW.end());
        self.message = format!("window {} s", self.window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_last_line_says() {
        let mut series = vec![Series::new("a".into(), String::new(), 1.0)];
        let mut view = View::new(60.0);
        let mut press = |view: &mut View, c| view.key(KeyEvent::from(KeyCode::Char(c)), &mut series, 100.0);
        assert_eq!(
            [press(&mut view, 'q'), press(&mut view, 'c'), press(&mut view, 's'), press(&mut view, 'g')],
            [Wish::Quit, Wish::Csv, Wish::Svg, Wish::Png]
        );
        press(&mut view, '+');
        assert_eq!(view.window, 30.0);
        for _ in 0..30 {
            press(&mut view, '-');
        }
        assert_eq!(view.window, *WINDOW.end());
        press(&mut view, 'p');
        assert_eq!(view.paused, Some(100.0));
        press(&mut view, ' ');
        assert_eq!(view.paused, None);
        press(&mut view, 'a');
        assert_eq!(view.scale, Some((0.0, 1.0)));
        press(&mut view, '1');
        press(&mut view, '9');
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.key(interrupt, &mut series, 0.0), Wish::Quit);
        assert!(!series[0].is_shown);
    }
}
