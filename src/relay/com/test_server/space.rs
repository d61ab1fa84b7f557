//! What the test server has: items, their values in time, and what a write does to them.
//!
//! Writing to the item `Control` is how a test commands it: `freeze` (no call returns any more), `silence` (no callback comes any
//! more), `die` (the process ends), `shutdown` (a goodbye), `slow 200` (each call takes so many milliseconds), `fast`,
//! `forget` (no group knows its items any more).

use super::group::State;
use super::points::{Place, held};
use crate::base::Clock;
use crate::relay::com::abi::*;
use crate::relay::com::memory::wide;
use crate::relay::protocol::{DaValue, Elements, Hresult};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};
use windows_core::Interface;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// 2 or 3.
    pub da: u32,
    /// All items at one level, and no branches.
    pub flat: bool,
    /// OPC_FLAT gives branches too.
    pub flat_lies: bool,
    /// The root has neither branches nor leaves, only a flat list.
    pub only_flat: bool,
    /// ItemIDs of branches cannot be jumped to: DA 1.
    pub climbs: bool,
    /// Groups have no connection points.
    pub mute: bool,
    /// `Ramps.Ramp0` and on.
    pub ramps: usize,
    /// `Many.Item00000` and on.
    pub many: usize,
    /// The shortest update rate, in milliseconds.
    pub fastest: u32,
    /// OPCSERVERSTATE.
    pub state: u32,
    /// Items of `Hostile`, which no honest server has.
    pub hostile: bool,
    /// Looking for a group's connection point ends the process.
    pub dies_in_advise: bool,
    /// Lists are the same whatever kind is asked for, as the specification has it for flat spaces.
    pub ignores_kind: bool,
    /// It does not say whether it is flat.
    pub no_organization: bool,
    /// Going down a branch answers S_OK and leads nowhere.
    pub stays: bool,
    /// OPC_FLAT gives nothing.
    pub no_flat: bool,
    /// GetItemID fails.
    pub no_item_ids: bool,
    /// Of DA 3: "more" without a continuation point, and at most so many elements unless all are asked for.
    pub no_points: bool,
    /// Of DA 3: one continuation point for all pieces; the server keeps the place.
    pub one_point: bool,
    /// Of DA 3: IOPCItemIO fails as a whole.
    pub item_io_fails: bool,
    /// AddItems fails as a whole if one item is unknown.
    pub all_or_none: bool,
    /// Callbacks are taken on, and never come.
    pub never_calls: bool,
    /// Refresh2 is not implemented.
    pub no_refresh: bool,
    /// QueryAvailableProperties is not implemented.
    pub no_properties: bool,
    /// The branch of this name cannot be browsed.
    pub broken: String,
}

impl Script {
    /// `branch`: a name or an ItemID.
    pub fn is_broken(&self, branch: &str) -> bool {
        !self.broken.is_empty() && branch.rsplit('.').next() == Some(&self.broken)
    }
}

impl Default for Script {
    fn default() -> Self {
        Self {
            da: 2,
            flat: false,
            flat_lies: false,
            only_flat: false,
            climbs: false,
            mute: false,
            ramps: 10,
            many: 100,
            fastest: 50,
            state: 1,
            hostile: false,
            dies_in_advise: false,
            ignores_kind: false,
            no_organization: false,
            stays: false,
            no_flat: false,
            no_item_ids: false,
            no_points: false,
            one_point: false,
            item_io_fails: false,
            all_or_none: false,
            never_calls: false,
            no_refresh: false,
            no_properties: false,
            broken: String::new(),
        }
    }
}

pub struct Item {
    pub id: String,
    pub data_type: u16,
    pub access: u32,
    pub properties: Vec<(u32, &'static str, DaValue)>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Kept,
    Ramp,
    Clamped,
    Control,
}

#[derive(Clone)]
pub struct Now {
    pub value: DaValue,
    pub quality: u16,
    pub time: u64,
    pub version: u64,
}

#[derive(Default)]
pub struct Node {
    pub names: Vec<String>,
    pub children: HashMap<String, Node>,
    pub item: Option<usize>,
}

pub struct World {
    pub script: Script,
    pub items: Vec<Item>,
    pub by_id: HashMap<String, usize>,
    pub root: Node,
    pub groups: Mutex<Vec<Weak<State>>>,
    pub goodbyes: Mutex<Vec<Place>>,
    now: Mutex<Vec<Now>>,
    is_frozen: AtomicBool,
    is_silent: AtomicBool,
    is_ending: AtomicBool,
    is_forgetting: AtomicBool,
    slow: AtomicU32,
    clock: Clock,
}

/// 1970, in FILETIME.
const EPOCH: u64 = 116_444_736_000_000_000;

const VT_DISPATCH: u16 = 9;
const VT_RECORD: u16 = 36;
const VT_BYREF: u16 = 0x4000;

/// 2026-01-01, in FILETIME: of what nobody has written yet.
const BEFORE: u64 = 134_116_992_000_000_000;

/// 50 ms, in FILETIME.
const RAMP: u64 = 500_000;

const GOOD: u16 = 0xC0;
const TICK: Duration = Duration::from_millis(10);

const OPC_S_CLAMP: Hresult = 0x0004_000E;
const OPC_E_RANGE: Hresult = 0xC004_000B_u32 as Hresult;
pub const OPC_E_BADRIGHTS: Hresult = 0xC004_0006_u32 as Hresult;

impl World {
    pub fn new(script: Script) -> Self {
        let mut world = Self {
            items: Vec::new(),
            by_id: HashMap::new(),
            root: Node::default(),
            groups: Mutex::default(),
            goodbyes: Mutex::default(),
            now: Mutex::default(),
            is_frozen: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            is_forgetting: AtomicBool::new(false),
            slow: AtomicU32::new(0),
            clock: Clock::real(),
            script,
        };
        world.fill();
        world.step();
        world
    }

    fn fill(&mut self) {
        for (name, value) in scalars() {
            self.add(&["Types", name], value, 3, Kind::Kept);
        }
        for (name, dimensions, elements) in arrays() {
            self.add(&["Types", "Arrays", name], DaValue::Array { dimensions, elements }, 3, Kind::Kept);
        }
        for number in 0..self.script.ramps {
            self.add(&["Ramps", &format!("Ramp{number}")], DaValue::R8(0.0), 1, Kind::Ramp);
        }
        for number in 0..self.script.many {
            self.add(&["Many", &format!("Item{number:05}")], DaValue::I4(number as i32), 3, Kind::Kept);
        }
        let number = || DaValue::R8(12.5);
        let names =
            ["With spaces", "with/slash", "with.dot", "with[bracket]", "WriteOnly", "ReadOnly", "Clamped", "Gäste-Öl"];
        for name in names {
            let (access, kind) = match name {
                "WriteOnly" => (2, Kind::Kept),
                "ReadOnly" => (1, Kind::Kept),
                "Clamped" => (3, Kind::Clamped),
                _ => (3, Kind::Kept),
            };
            self.add(&["Special", name], number(), access, kind);
        }
        for (name, quality) in [("Bad", 0x18), ("Uncertain", 0x56), ("Override", 0xD8), ("Vendor", 0x12C0)] {
            let index = self.add(&["Special", name], number(), 3, Kind::Kept);
            self.lock()[index].quality = quality;
        }
        for (name, time) in [("Time1601", 0), ("Time2300", 220_580_000_000_000_000), ("TimeMax", u64::MAX)] {
            let index = self.add(&["Special", name], number(), 3, Kind::Kept);
            self.lock()[index].time = time;
        }
        // One name as leaf and branch.
        self.add(&["Special", "Twin"], number(), 3, Kind::Kept);
        self.add(&["Special", "Twin", "Inner"], number(), 3, Kind::Kept);
        let analog = self.add(&["Special", "Analog"], number(), 3, Kind::Kept);
        self.items[analog].properties = vec![
            (7, "EU Type", DaValue::I4(1)),
            (100, "EU Units", DaValue::Text("°C".into())),
            (101, "Description", DaValue::Text("Boiler, flow".into())),
            (102, "High EU", DaValue::R8(150.0)),
            (103, "Low EU", DaValue::R8(-50.0)),
            (104, "High Instrument Range", DaValue::R8(200.0)),
            (105, "Low Instrument Range", DaValue::R8(-100.0)),
            (5000, "Colour", DaValue::U1(7)),
        ];
        let two = self.add(&["Special", "TwoState"], DaValue::Bool(true), 3, Kind::Kept);
        self.items[two].properties = vec![
            (106, "Contact Close Label", DaValue::Text("Running".into())),
            (107, "Contact Open Label", DaValue::Text("Stopped".into())),
        ];
        let multi = self.add(&["Special", "MultiState"], DaValue::I4(1), 3, Kind::Kept);
        let names = Elements::Text(["off", "slow", "fast"].map(String::from).to_vec());
        self.items[multi].properties = vec![
            (7, "EU Type", DaValue::I4(2)),
            (8, "EU Info", DaValue::Array { dimensions: vec![3], elements: names }),
        ];
        if self.script.hostile {
            self.add_hostile();
        }
        self.add(&["Control"], DaValue::Text(String::new()), 3, Kind::Control);
    }

    fn add_hostile(&mut self) {
        let around = |value| DaValue::Array { dimensions: vec![1], elements: Elements::Variant(vec![value]) };
        let long = "n".repeat(1 << 16);
        for (name, value) in [
            ("NaN", DaValue::R8(f64::NAN)),
            ("Infinite", DaValue::R4(f32::NEG_INFINITY)),
            ("Record", DaValue::Unsupported(VT_RECORD)),
            ("Records", DaValue::Unsupported(VT_ARRAY | VT_RECORD)),
            ("Object", DaValue::Unsupported(VT_DISPATCH)),
            ("Nowhere", DaValue::Unsupported(VT_BYREF | VT_I4)),
            ("Type", DaValue::Unsupported(0x0FFF)),
            ("Deep", (0..40).fold(DaValue::I4(5), |value, _| around(value))),
            ("Huge", DaValue::Text("h".repeat(1 << 20))),
            ("Counts", DaValue::I4(5)),
            ("Quality", DaValue::I4(5)),
            (&long, DaValue::I4(5)),
        ] {
            let index = self.add(&["Hostile", name], value, 1, Kind::Kept);
            if name == "Quality" {
                self.lock()[index].quality = 0xFFBF;
            }
        }
    }

    /// How many properties it says that there are, of so many.
    pub fn count(&self, index: usize, count: usize) -> u32 {
        if self.items[index].id == "Hostile.Counts" { u32::MAX } else { count as u32 }
    }

    fn add(&mut self, path: &[&str], value: DaValue, access: u32, kind: Kind) -> usize {
        let index = self.items.len();
        let id = path.join(".");
        let id_as_name = [id.as_str()];
        let mut node = &mut self.root;
        for name in if self.script.flat { &id_as_name[..] } else { path } {
            if !node.children.contains_key(*name) {
                node.names.push((*name).to_owned());
            }
            node = node.children.entry((*name).to_owned()).or_default();
        }
        node.item = Some(index);
        self.by_id.insert(id.clone(), index);
        let data_type = match &value {
            DaValue::Array { elements, .. } => VT_ARRAY | elements.vartype(),
            DaValue::Empty | DaValue::Null => VT_EMPTY,
            other => type_of(other),
        };
        self.items.push(Item { id, data_type, access, properties: Vec::new(), kind });
        self.lock().push(Now { value, quality: GOOD, time: BEFORE, version: 1 });
        index
    }

    /// Each call of the server begins here.
    pub fn gate(&self) {
        while self.is_frozen.load(Ordering::SeqCst) {
            thread::park();
        }
        match self.slow.load(Ordering::SeqCst) {
            0 => {}
            slow => thread::sleep(Duration::from_millis(slow.into())),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Vec<Now>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn time(&self) -> u64 {
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        EPOCH + since.as_nanos() as u64 / 100
    }

    pub fn write(&self, index: usize, value: DaValue) -> Hresult {
        let item = &self.items[index];
        if item.access & 2 == 0 {
            return OPC_E_BADRIGHTS;
        }
        let (value, result) = match (item.kind, value) {
            (Kind::Clamped, DaValue::R8(value)) if value > 1000.0 => (DaValue::R8(value), OPC_E_RANGE),
            (Kind::Clamped, DaValue::R8(value)) if value > 100.0 => (DaValue::R8(100.0), OPC_S_CLAMP),
            (Kind::Control, DaValue::Text(command)) => {
                self.command(&command);
                (DaValue::Text(command), 0)
            }
            (_, value) => (value, 0),
        };
        if result >= 0 {
            let now = &mut self.lock()[index];
            let version = now.version + 1;
            *now = Now { value, quality: GOOD, time: self.time(), version };
        }
        result
    }

    fn command(&self, command: &str) {
        let (word, number) = command.split_once(' ').unwrap_or((command, ""));
        match word {
            "freeze" => self.is_frozen.store(true, Ordering::SeqCst),
            "silence" => self.is_silent.store(true, Ordering::SeqCst),
            "die" => std::process::abort(),
            "shutdown" => self.is_ending.store(true, Ordering::SeqCst),
            "slow" => self.slow.store(number.parse().unwrap_or(100), Ordering::SeqCst),
            "fast" => self.slow.store(0, Ordering::SeqCst),
            "forget" => self.is_forgetting.store(true, Ordering::SeqCst),
            _ => {}
        }
    }

    /// For ever: moves the ramps and calls back.
    pub fn run(&self) {
        let mut moved = Instant::now();
        loop {
            thread::sleep(TICK);
            while self.is_frozen.load(Ordering::SeqCst) {
                thread::park();
            }
            if moved.elapsed() >= Duration::from_millis(self.script.fastest.into()) {
                moved = Instant::now();
                self.step();
            }
            if self.is_ending.swap(false, Ordering::SeqCst) {
                self.say_goodbye();
            }
            // Not in the write that says so, which holds a group.
            if self.is_forgetting.swap(false, Ordering::SeqCst) {
                self.living().iter().for_each(|group| group.forget());
            }
            if self.script.never_calls || self.is_silent.load(Ordering::SeqCst) {
                continue;
            }
            self.living().iter().for_each(|group| group.tick(self));
        }
    }

    fn living(&self) -> Vec<Arc<State>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|group| group.strong_count() > 0);
        groups.iter().filter_map(Weak::upgrade).collect()
    }

    /// A ramp's value is told by its time, whoever looks: how many steps of [`RAMP`] there have been, of 1000.
    fn step(&self) {
        let steps = self.time() / RAMP;
        for (item, now) in self.items.iter().zip(self.lock().iter_mut()) {
            if let (Kind::Ramp, DaValue::R8(value)) = (item.kind, &mut now.value) {
                *value = (steps % 1000) as f64;
                now.time = steps * RAMP;
                now.version += 1;
            }
        }
    }

    fn say_goodbye(&self) {
        let places = self.goodbyes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = wide("told to");
        for sink in places.iter().filter_map(held) {
            // SAFETY: the sink was queried for this interface; a text with its zero.
            let _ = unsafe { IOPCShutdown::from_raw(sink.into_raw()).ShutdownRequest(reason.as_ptr()) };
        }
    }

    pub fn node(&self, path: &[String]) -> Option<&Node> {
        path.iter().try_fold(&self.root, |node, name| node.children.get(name))
    }

    /// The standard ones first.
    pub fn properties(&self, index: usize) -> Vec<(u32, &'static str, u16, DaValue)> {
        let (item, now) = (&self.items[index], self.lock()[index].clone());
        let mut all = vec![
            (1, "Item Canonical Data Type", VT_I2, DaValue::I2(item.data_type as i16)),
            (2, "Item Value", item.data_type, now.value),
            (3, "Item Quality", VT_I2, DaValue::I2(now.quality as i16)),
            (4, "Item Timestamp", VT_DATE, DaValue::Date(now.time as f64 / 864e9 - 109_205.0)),
            (5, "Item Access Rights", VT_I4, DaValue::I4(item.access as i32)),
            (6, "Server Scan Rate", VT_R4, DaValue::R4(self.script.fastest as f32)),
        ];
        all.extend(item.properties.iter().map(|(id, description, value)| {
            let data_type = match value {
                DaValue::Array { elements, .. } => VT_ARRAY | elements.vartype(),
                other => type_of(other),
            };
            (*id, *description, data_type, value.clone())
        }));
        all
    }
}

/// The VARTYPE of a scalar.
fn type_of(value: &DaValue) -> u16 {
    match value {
        DaValue::Bool(_) => VT_BOOL,
        DaValue::I1(_) => VT_I1,
        DaValue::U1(_) => VT_UI1,
        DaValue::I2(_) => VT_I2,
        DaValue::U2(_) => VT_UI2,
        DaValue::I4(_) => VT_I4,
        DaValue::U4(_) => VT_UI4,
        DaValue::I8(_) => VT_I8,
        DaValue::U8(_) => VT_UI8,
        DaValue::R4(_) => VT_R4,
        DaValue::R8(_) => VT_R8,
        DaValue::Cy(_) => VT_CY,
        DaValue::Date(_) => VT_DATE,
        DaValue::Text(_) => VT_BSTR,
        DaValue::Error(_) => VT_ERROR,
        DaValue::Decimal(_) => VT_DECIMAL,
        _ => VT_EMPTY,
    }
}

fn scalars() -> Vec<(&'static str, DaValue)> {
    vec![
        ("Bool", DaValue::Bool(true)),
        ("I1", DaValue::I1(-8)),
        ("UI1", DaValue::U1(200)),
        ("I2", DaValue::I2(-30_000)),
        ("UI2", DaValue::U2(60_000)),
        ("I4", DaValue::I4(-2_000_000_000)),
        ("UI4", DaValue::U4(4_000_000_000)),
        ("I8", DaValue::I8(-9_000_000_000_000_000_000)),
        ("UI8", DaValue::U8(18_000_000_000_000_000_000)),
        ("R4", DaValue::R4(1.5)),
        ("R8", DaValue::R8(2.25)),
        ("CY", DaValue::Cy(123_456)),
        ("DATE", DaValue::Date(46_000.5)),
        ("BSTR", DaValue::Text("Grüße".into())),
        ("ERROR", DaValue::Error(-5)),
        ("DECIMAL", DaValue::Decimal(-12.75)),
        ("EMPTY", DaValue::Empty),
        ("NULL", DaValue::Null),
    ]
}

fn arrays() -> Vec<(&'static str, Vec<u32>, Elements)> {
    let variants = vec![DaValue::I2(1), DaValue::Text("two".into()), DaValue::R8(3.5)];
    vec![
        ("Bool", vec![2], Elements::Bool(vec![true, false])),
        ("I1", vec![2], Elements::I1(vec![-1, 2])),
        ("UI1", vec![3], Elements::U1(vec![1, 2, 255])),
        ("I2", vec![2], Elements::I2(vec![-1, 2])),
        ("UI2", vec![2], Elements::U2(vec![1, 65_535])),
        ("I4", vec![2], Elements::I4(vec![-1, 2])),
        ("UI4", vec![2], Elements::U4(vec![1, u32::MAX])),
        ("I8", vec![2], Elements::I8(vec![-1, i64::MAX])),
        ("UI8", vec![2], Elements::U8(vec![1, u64::MAX])),
        ("R4", vec![2], Elements::R4(vec![0.5, -1.5])),
        ("R8", vec![2], Elements::R8(vec![0.5, -1.5])),
        ("CY", vec![2], Elements::Cy(vec![10_000, -5])),
        ("DATE", vec![2], Elements::Date(vec![1.5, 46_000.0])),
        ("BSTR", vec![2], Elements::Text(vec!["a".into(), "ü".into()])),
        ("ERROR", vec![2], Elements::Error(vec![-1, 0])),
        ("VARIANT", vec![3], Elements::Variant(variants)),
        ("Matrix", vec![2, 3], Elements::I4(vec![1, 2, 3, 4, 5, 6])),
        ("Cube", vec![2, 2, 2], Elements::R8(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])),
        ("None", vec![0], Elements::I4(Vec::new())),
    ]
}
