//! Measures the main figures of greenloop beside its peers, and draws them into `benches/charts/`.
//!
//! `cargo run --release -p greenloop-benches --bin charts`, some five minutes; with `--quick`, one,
//! and figures that are good for nothing. Names of files (`yield.svg`) ask for these alone.
//!
//! | file | shows |
//! |---|---|
//! | `echo.svg` | processor time of an echo server per request, against connections |
//! | `memory.svg` | resident memory, against parked greenlets and virtual threads |
//! | `yield.svg` | one `yield_now`, against how many take turns |
//!
//! Each point is a median over rounds in which all take turns, as in the benches. What else has to
//! be there (the servers, the example `parked`) it builds by itself.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use greenloop_benches::echo::compare::{Settings, entries};
use greenloop_benches::echo::{ECHO, VIRTUAL_THREADS};
use greenloop_benches::os;
use greenloop_benches::report::{Contender, OURS, Table};
use greenloop_benches::runtimes::tokio::Drivers;
use greenloop_benches::runtimes::{greenloop as greenlets, may, threads, tokio};
use greenloop_benches::stats::Median;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Connections of the first chart.
const CONNECTIONS: [usize; 6] = [1, 10, 100, 400, 1_000, 4_000];

/// Parked at once in the second.
const PARKED: [usize; 6] = [1_000, 10_000, 25_000, 50_000, 75_000, 100_000];

/// Taking turns in the third.
const TURNING: [usize; 6] = [1, 10, 100, 1_000, 3_000, 10_000];

/// A green thread of ours.
const GREENLETS: &str = "greenlets";

/// The other kind.
const THREADS: &str = "virtual threads";

/// The order of the lines decides their colours, which everybody can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 0, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(120, 120, 120),
];

/// One line of a chart.
struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// A chart without its lines.
struct Chart<'a> {
    file: &'a str,
    title: &'a str,
    across: &'a str,
    up: &'a str,
    /// Whether the horizontal axis is logarithmic.
    by_decades: bool,
    /// Measures them. It is given the root of the repository, and whether to be quick.
    measure: fn(&Path, bool) -> Outcome<Vec<Line>>,
}

fn main() -> Outcome {
    let quick = env::args().any(|argument| argument == "--quick");
    let names: Vec<String> = env::args().skip(1).filter(|name| !name.starts_with("--")).collect();
    let charts = [
        Chart {
            file: "memory.svg",
            title: "What those that wait keep resident",
            across: "parked at once",
            up: "MiB",
            by_decades: false,
            measure: memory,
        },
        Chart {
            file: "echo.svg",
            title: "An echo server: processor time for each request of 64 bytes",
            across: "connections",
            up: "µs, user and system",
            by_decades: true,
            measure: echo,
        },
        Chart {
            file: "yield.svg",
            title: "Giving way: one yield_now",
            across: "taking turns",
            up: "ns",
            by_decades: true,
            measure: yields,
        },
    ];
    let is_asked = |chart: &&Chart<'_>| names.is_empty() || names.iter().any(|n| n == chart.file);
    let asked: Vec<&Chart<'_>> = charts.iter().filter(is_asked).collect();
    if asked.len() < names.len() {
        return Err(format!("not all of {names:?} are charts").into());
    }
    // Before this keeps to one core.
    let machine = os::machine();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("a package has a folder")?;
    let folder = root.join("benches/charts");
    fs::create_dir_all(&folder)?;
    for chart in asked {
        let lines = (chart.measure)(root, quick)?;
        chart.draw(&folder, &machine, &lines)?;
    }
    Ok(())
}

/// Builds what is to be started.
fn build(root: &Path, what: &[&str]) -> Outcome {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built =
        Command::new(cargo).args(["build", "--release"]).args(what).current_dir(root).status()?;
    if !built.success() {
        return Err(format!("cargo build --release {}: {built}", what.join(" ")).into());
    }
    Ok(())
}

/// Servers against connections.
fn echo(root: &Path, quick: bool) -> Outcome<Vec<Line>> {
    const SERVERS: [(&str, &str); 5] = [
        (OURS, GREENLETS),
        (VIRTUAL_THREADS, THREADS),
        ("bare", "a bare epoll loop"),
        ("tokio", "tokio"),
        ("may", "may"),
    ];
    build(root, &["--package", "greenloop-benches", "--bins"])?;
    let mut settings = Settings::of(&ECHO);
    settings.servers = SERVERS.iter().map(|(server, _)| (*server).to_owned()).collect();
    settings.rounds = if quick { 1 } else { 7 };
    settings.requests = if quick { 2_000 } else { 20_000 };
    let mut lines: Vec<Line> =
        SERVERS.iter().map(|(_, name)| Line { name, points: Vec::new() }).collect();
    for connections in CONNECTIONS {
        let found = entries(&settings, connections)?;
        for (line, (server, _)) in lines.iter_mut().zip(SERVERS) {
            let entry =
                found.iter().find(|entry| entry.name == server).ok_or("a server is left")?;
            line.add(connections, Median::of(&entry.rounds_ns).value / 1e3);
        }
    }
    Ok(lines)
}

/// Resident memory against how many are parked: by the example, in a process for each.
fn memory(root: &Path, quick: bool) -> Outcome<Vec<Line>> {
    build(root, &["--package", "greenloop", "--example", "parked"])?;
    let example = env::current_exe()?.with_file_name("examples").join("parked");
    [(GREENLETS, None), (THREADS, Some("threads"))]
        .into_iter()
        .map(|(name, kind)| {
            let mut line = Line { name, points: Vec::new() };
            for count in &PARKED[..if quick { 3 } else { PARKED.len() }] {
                eprint!("\r{count} {name} parked      ");
                let kib = resident_kib(&example, *count, kind)? * *count as f64;
                line.add(*count, kib / 1024.0);
            }
            eprintln!();
            Ok(line)
        })
        .collect()
}

/// What each of `count` keeps resident, as the example says it.
fn resident_kib(example: &PathBuf, count: usize, kind: Option<&str>) -> Outcome<f64> {
    let mut command = Command::new(example);
    command.arg(count.to_string()).args(kind).stderr(Stdio::null());
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    let figure = text.split_once("\"rss_kib_each\":").and_then(|(_, rest)| rest.split(',').next());
    let figure = figure.filter(|_| output.status.success());
    Ok(figure.ok_or_else(|| format!("parked {count}: {} {text}", output.status))?.parse()?)
}

/// A yield against how many take turns.
fn yields(_root: &Path, quick: bool) -> Outcome<Vec<Line>> {
    const NAMES: [&str; 4] = [GREENLETS, THREADS, "tokio", "may"];
    fn contenders<const COUNT: usize>() -> [Contender; 4] {
        [
            Contender { name: NAMES[0], run: |yields| greenlets::yield_now(COUNT, yields) },
            Contender { name: NAMES[1], run: |yields| threads::yield_now(COUNT, yields) },
            Contender { name: NAMES[2], run: |n| tokio::yield_now(Drivers::All, COUNT, n) },
            Contender { name: NAMES[3], run: |yields| may::yield_now(COUNT, yields) },
        ]
    }
    // The load of another chart was on the other core.
    os::pin_to_core(0)?;
    let all = [
        contenders::<{ TURNING[0] }>(),
        contenders::<{ TURNING[1] }>(),
        contenders::<{ TURNING[2] }>(),
        contenders::<{ TURNING[3] }>(),
        contenders::<{ TURNING[4] }>(),
        contenders::<{ TURNING[5] }>(),
    ];
    let mut lines: Vec<Line> =
        NAMES.into_iter().map(|name| Line { name, points: Vec::new() }).collect();
    for (count, contenders) in TURNING.into_iter().zip(all) {
        eprint!("\r{count} take turns      ");
        let table = Table::contest("", &contenders, if quick { 2_000 } else { 200_000 });
        for (line, entry) in lines.iter_mut().zip(table.entries) {
            line.add(count, Median::of(&entry.rounds_ns).value);
        }
    }
    eprintln!();
    Ok(lines)
}

impl Line {
    fn add(&mut self, at: usize, value: f64) {
        self.points.push((at as f64, value));
    }
}

impl Chart<'_> {
    /// Draws it, with the machine below.
    fn draw(&self, folder: &Path, machine: &str, lines: &[Line]) -> Outcome {
        let path = folder.join(self.file);
        let area = SVGBackend::new(&path, (800, 450)).into_drawing_area();
        area.fill(&WHITE)?;
        let note = ("sans-serif", 12).into_font().color(&BLACK.mix(0.6));
        area.draw_text(machine, &note, (12, 432))?;
        let area = area.margin(8, 24, 8, 24);
        let points = || lines.iter().flat_map(|line| &line.points);
        let right = points().map(|point| point.0).fold(1.0, f64::max);
        let top = points().map(|point| point.1).fold(0.0, f64::max) * 1.08;
        let mut builder = ChartBuilder::on(&area);
        builder.caption(self.title, ("sans-serif", 18)).x_label_area_size(40).y_label_area_size(56);
        if self.by_decades {
            let chart = builder.build_cartesian_2d((1.0..right * 1.2).log_scale(), 0.0..top)?;
            self.fill_in(chart, lines)?;
        } else {
            let chart = builder.build_cartesian_2d(0.0..right * 1.02, 0.0..top)?;
            self.fill_in(chart, lines)?;
        }
        area.present()?;
        println!("{}", path.display());
        Ok(())
    }

    fn fill_in<'b, X>(
        &self,
        mut chart: ChartContext<'b, SVGBackend<'b>, Cartesian2d<X, RangedCoordf64>>,
        lines: &[Line],
    ) -> Outcome
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(self.across)
            .y_desc(self.up)
            .label_style(("sans-serif", 13))
            .x_label_formatter(&|count| grouped(*count))
            .y_label_formatter(&|value| grouped(*value))
            .draw()?;
        for (line, colour) in lines.iter().zip(COLOURS) {
            chart
                .draw_series(LineSeries::new(line.points.clone(), colour.stroke_width(2)))?
                .label(line.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
            chart.draw_series(
                line.points.iter().map(|point| Circle::new(*point, 3, colour.filled())),
            )?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font(("sans-serif", 14))
            .draw()?;
        Ok(())
    }
}

/// A number as one reads it: with commas between thousands.
fn grouped(value: f64) -> String {
    if value < 10.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
