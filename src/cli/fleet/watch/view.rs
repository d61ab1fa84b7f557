//! What the keys change: the order, the filter, which node is chosen, and whether it is looked into.

use super::rows::Order;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

#[derive(Default)]
pub(super) struct View {
    pub order: Order,
    /// Of the table.
    pub filter: String,
    /// Of the metrics of a node.
    pub inner_filter: String,
    /// The filter is being typed.
    pub is_typing: bool,
    /// By key, so that a node stays chosen when its place changes.
    pub chosen: Option<String>,
    /// The node that is looked into.
    pub inside: Option<String>,
    /// The first line of the node's metrics that is shown.
    pub top: usize,
    /// The last line of the screen, if it says anything but what the keys do.
    pub message: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// A birth of this node.
    Birth(String),
}

/// What is on the screen, for keys that move.
pub(super) struct Shown<'a> {
    /// Of the nodes, in their order.
    pub keys: &'a [String],
    /// Lines of a page.
    pub page: usize,
    /// Lines of the node that is looked into.
    pub lines: usize,
}

impl View {
    pub(super) fn keys(&self) -> &'static str {
        match (self.is_typing, &self.inside) {
            (true, _) => "type what names have in them; Enter keeps it, Esc drops it",
            (false, None) => "q quit  ↑↓ choose  Enter look into  s sort  r reverse  / filter",
            (false, Some(_)) => "Esc back  ↑↓ PgUp PgDn scroll  / filter  b ask for a birth  q quit",
        }
    }

    pub(super) fn filter_mut(&mut self) -> &mut String {
        if self.inside.is_some() { &mut self.inner_filter } else { &mut self.filter }
    }

    pub(super) fn key(&mut self, key: KeyEvent, shown: &Shown<'_>) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        self.message = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Wish::Quit } else { Wish::Nothing };
        }
        if self.is_typing {
            self.typed(key.code);
            return Wish::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1, shown),
            KeyCode::Down | KeyCode::Char('j') => self.step(1, shown),
            KeyCode::PageUp => self.step(-(shown.page as isize), shown),
            KeyCode::PageDown | KeyCode::Char(' ') => self.step(shown.page as isize, shown),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN, shown),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX, shown),
            KeyCode::Enter | KeyCode::Right if self.inside.is_none() => {
                self.inside = self.chosen.clone().or_else(|| shown.keys.first().cloned());
                self.chosen.clone_from(&self.inside);
                (self.top, self.inner_filter) = (0, String::new());
                if let Some(node) = self.inside.clone() {
                    return Wish::Birth(node);
                }
            }
            KeyCode::Char('b') => {
                if let Some(node) = self.inside.clone() {
                    self.message = Some("asked for a birth if one is missing".into());
                    return Wish::Birth(node);
                }
            }
            KeyCode::Char('s') if self.inside.is_none() => self.order.by = self.order.by.next(),
            KeyCode::Char('r') if self.inside.is_none() => self.order.is_reversed = !self.order.is_reversed,
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => match self.inside {
                Some(_) if !self.inner_filter.is_empty() => self.inner_filter.clear(),
                Some(_) => self.inside = None,
                None => self.filter.clear(),
            },
            _ => {}
        }
        Wish::Nothing
    }

    fn typed(&mut self, code: KeyCode) {
        self.top = 0;
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter_mut().clear();
            }
            KeyCode::Backspace => drop(self.filter_mut().pop()),
            KeyCode::Char(c) => self.filter_mut().push(c),
            _ => {}
        }
    }

    fn step(&mut self, by: isize, shown: &Shown<'_>) {
        let moved = |at: usize, last: usize| at.saturating_add_signed(by).min(last);
        if self.inside.is_some() {
            self.top = moved(self.top, shown.lines.saturating_sub(shown.page));
            return;
        }
        let at = self.place(shown.keys);
        self.chosen = shown.keys.get(moved(at, shown.keys.len().saturating_sub(1))).cloned();
    }

    /// Where the chosen node stands.
    pub(super) fn place(&self, keys: &[String]) -> usize {
        let chosen = self.chosen.as_ref();
        chosen.and_then(|chosen| keys.iter().position(|key| key == chosen)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::Column;
    use super::*;

    #[test]
    fn keys_do_what_the_last_line_says() {
        let keys: Vec<String> = (0..30).map(|node| format!("G/{node:02}")).collect();
        let shown = Shown { keys: &keys, page: 10, lines: 25 };
        let mut view = View::default();
        let press = |view: &mut View, code| view.key(KeyEvent::from(code), &shown);
        for (code, chosen) in [
            (KeyCode::Down, "G/01"),
            (KeyCode::PageDown, "G/11"),
            (KeyCode::End, "G/29"),
            (KeyCode::Down, "G/29"),
            (KeyCode::Up, "G/28"),
            (KeyCode::Home, "G/00"),
            (KeyCode::Up, "G/00"),
        ] {
            assert_eq!(press(&mut view, code), Wish::Nothing);
            assert_eq!(view.chosen.as_deref(), Some(chosen));
        }
        press(&mut view, KeyCode::Char('s'));
        press(&mut view, KeyCode::Char('r'));
        assert!(view.order.by == Column::Node && view.order.is_reversed);
        for c in "/qx".chars() {
            assert_eq!(press(&mut view, KeyCode::Char(c)), Wish::Nothing, "q is a letter here");
        }
        press(&mut view, KeyCode::Backspace);
        press(&mut view, KeyCode::Enter);
        assert!(view.filter == "q" && !view.is_typing);
        assert_eq!(press(&mut view, KeyCode::Enter), Wish::Birth("G/00".into()));
        press(&mut view, KeyCode::End);
        assert_eq!(view.top, 15);
        press(&mut view, KeyCode::Esc);
        assert!(view.inside.is_none() && view.filter == "q");
        press(&mut view, KeyCode::Esc);
        assert!(view.filter.is_empty());
        assert_eq!(press(&mut view, KeyCode::Char('q')), Wish::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        view.is_typing = true;
        assert_eq!(view.key(interrupt, &shown), Wish::Quit);
    }
}
