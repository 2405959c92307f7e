//! Charts as SVG, drawn here: numbers and escaped labels, presentation by classes. What a line shows, a table beside it says.

use std::fmt::Write;

use crate::words::{Safe, compact, escape};

/// A chart.
pub(crate) type Svg = Safe;

/// Size of a chart, in units of its view.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 180.0;
/// Room for the numbers at its left and for the times below it.
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 20.0;
const TOP: f64 = 8.0;
/// Series that look different from each other.
const SERIES_MAX: usize = 6;
/// Rows of the table beside a chart: of more points, every so many-th.
const TABLE_ROWS_MAX: usize = 30;

/// Numbers of one name; `NaN` where there is none.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its name.
    pub(crate) name: String,
    /// One for each label.
    pub(crate) values: Vec<f64>,
}

impl Series {
    /// A series.
    pub(crate) fn new(name: impl Into<String>, values: Vec<f64>) -> Self {
        Self { name: name.into(), values }
    }
}

/// A row of [`bars`].
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// What it is.
    pub(crate) label: String,
    /// Where it leads; nothing if it is empty.
    pub(crate) href: String,
    /// How long it is, in relation to the others.
    pub(crate) value: f64,
    /// What it says.
    pub(crate) text: String,
}

/// A line for each series over the labels (times), with a legend and a table. `unit` follows each number in the table.
pub(crate) fn line(title: &str, unit: &str, labels: &[String], series: &[Series]) -> Svg {
    let series = &series[..series.len().min(SERIES_MAX)];
    let top = top_of(series.iter().flat_map(|series| &series.values).copied());
    let mut svg = opened(title);
    grid(&mut svg, top, unit, labels);
    let across = (WIDTH - LEFT) / (labels.len().max(2) - 1) as f64;
    for (index, one) in series.iter().enumerate() {
        // A gap where nothing is known is no zero, and a point between two gaps no line.
        let known = |at: usize| one.values.get(at).is_some_and(|value| value.is_finite());
        let mut path = String::new();
        for (at, value) in one.values.iter().enumerate().take(labels.len()).filter(|(at, _)| known(*at)) {
            let (x, y) = (LEFT + across * at as f64, height_of(*value, top));
            let goes_on = at > 0 && known(at - 1);
            let _ = write!(path, "{}{x:.1} {y:.1}", if goes_on { "L" } else { "M" });
            if !goes_on && !known(at + 1) {
                let _ = write!(svg, "<circle class=\"column s{index}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
            }
        }
        let _ = write!(svg, "<path class=\"line s{index}\" d=\"{path}\"/>");
    }
    svg.push_str("</svg>");
    figure(title, unit, labels, series, &svg)
}

/// A column for each label, of the series on top of each other, with a legend and a table.
pub(crate) fn columns(title: &str, unit: &str, labels: &[String], series: &[Series]) -> Svg {
    let series = &series[..series.len().min(SERIES_MAX)];
    let value = |one: &Series, at: usize| one.values.get(at).copied().filter(|value| value.is_finite()).unwrap_or(0.0);
    let sums = (0..labels.len()).map(|at| series.iter().map(|one| value(one, at).max(0.0)).sum());
    let top = top_of(sums);
    let mut svg = opened(title);
    grid(&mut svg, top, unit, labels);
    let across = (WIDTH - LEFT) / labels.len().max(1) as f64;
    let (gap, wide) = (across * 0.15, across * 0.7);
    for at in 0..labels.len() {
        let mut below = 0.0;
        for (index, one) in series.iter().enumerate() {
            let size = value(one, at).max(0.0);
            let (y, under) = (height_of(below + size, top), height_of(below, top));
            below += size;
            let x = LEFT + across * at as f64 + gap;
            let _ = write!(
                svg,
                "<rect class=\"column s{index}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{:.1}\"/>",
                (under - y).max(0.0)
            );
        }
    }
    svg.push_str("</svg>");
    figure(title, unit, labels, series, &svg)
}

/// A table with a bar in each row: what is most, at a glance.
pub(crate) fn bars(title: &str, rows: &[Bar]) -> Svg {
    let top = top_of(rows.iter().map(|row| row.value));
    let mut html = format!("<table class=\"bars\"><caption>{}</caption><tbody>", escape(title));
    for row in rows {
        let long = (row.value.max(0.0) / top * 100.0).min(100.0);
        let label = escape(&row.label);
        let label = match row.href.as_str() {
            "" => label,
            href => format!("<a href=\"{}\">{label}</a>", escape(href)),
        };
        let _ = write!(
            html,
            "<tr><th scope=\"row\">{label}</th><td class=\"bar\"><svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" \
             aria-hidden=\"true\"><rect class=\"column s0\" width=\"{long:.1}\" height=\"8\"/></svg></td><td \
             class=\"num\">{}</td></tr>",
            escape(&row.text)
        );
    }
    html.push_str("</tbody></table>");
    Safe::new(html)
}

/// A small line without axes; `label` says what it shows.
pub(crate) fn sparkline(values: &[f64], label: &str) -> Svg {
    const WIDE: f64 = 120.0;
    const HIGH: f64 = 26.0;
    let top = top_of(values.iter().copied());
    let across = WIDE / (values.len().max(2) - 1) as f64;
    let mut path = String::new();
    for (at, value) in values.iter().enumerate() {
        let value = if value.is_finite() { value.max(0.0) } else { 0.0 };
        let (x, y) = (across * at as f64, HIGH - 1.0 - value / top * (HIGH - 3.0));
        let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" });
    }
    Safe::new(format!(
        "<svg class=\"spark\" viewBox=\"0 0 {WIDE} {HIGH}\" role=\"img\" aria-label=\"{}\"><path class=\"line s0\" \
         d=\"{path}\"/></svg>",
        escape(label)
    ))
}

/// A small column for each value, such as runs; `bad` ones are marked by colour and by a dot on top.
pub(crate) fn ticks(values: &[(f64, bool)], label: &str) -> Svg {
    const WIDE: f64 = 120.0;
    const HIGH: f64 = 26.0;
    let top = top_of(values.iter().map(|(value, _)| *value));
    let across = WIDE / values.len().max(1) as f64;
    let mut svg =
        format!("<svg class=\"spark\" viewBox=\"0 0 {WIDE} {HIGH}\" role=\"img\" aria-label=\"{}\">", escape(label));
    for (at, (value, bad)) in values.iter().enumerate() {
        let high = (value.max(0.0) / top * (HIGH - 8.0)).max(2.0);
        let (x, tone) = (across * at as f64, if *bad { "bad" } else { "s0" });
        let _ = write!(
            svg,
            "<rect class=\"column {tone}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{high:.1}\"/>",
            HIGH - high,
            (across * 0.75).min(10.0)
        );
        if *bad {
            let middle = x + (across * 0.75).min(10.0) / 2.0;
            let _ = write!(svg, "<circle class=\"column bad\" cx=\"{middle:.1}\" cy=\"3\" r=\"2\"/>");
        }
    }
    svg.push_str("</svg>");
    Safe::new(svg)
}

/// How much of something is used: a share of 1, in words and as a bar. From 0.8 on it is worth a look, from 1 on it is full.
pub(crate) fn gauge(share: f64, words: &str) -> Svg {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let tone = match share {
        full if full >= 1.0 => "bad",
        much if much >= 0.8 => "warn",
        _ => "s0",
    };
    Safe::new(format!(
        "<span class=\"gauge\"><svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect \
         class=\"track\" width=\"100\" height=\"8\"/><rect class=\"column {tone}\" width=\"{:.1}\" height=\"8\"/></svg> \
         {}</span>",
        share * 100.0,
        escape(words)
    ))
}

fn opened(title: &str) -> String {
    format!("<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(title))
}

fn figure(title: &str, unit: &str, labels: &[String], series: &[Series], svg: &str) -> Svg {
    let mut html =
        format!("<figure class=\"chart\"><figcaption>{}</figcaption>{svg}<ul class=\"legend\">", escape(title));
    for (index, one) in series.iter().enumerate() {
        let last = one.values.iter().rev().find(|value| value.is_finite());
        let last = last.map_or_else(|| "–".to_owned(), |value| format!("{} {unit}", compact(*value)));
        let _ = write!(
            html,
            "<li><svg viewBox=\"0 0 24 8\" aria-hidden=\"true\"><path class=\"line s{index}\" d=\"M0 4L24 4\"/></svg>{} \
             <b>{}</b></li>",
            escape(&one.name),
            escape(last.trim())
        );
    }
    html.push_str(
        "</ul><details><summary>As a table</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\">",
    );
    html.push_str("Time</th>");
    for one in series {
        let _ = write!(html, "<th scope=\"col\" class=\"num\">{}</th>", escape(&one.name));
    }
    html.push_str("</tr></thead><tbody>");
    let step = labels.len().div_ceil(TABLE_ROWS_MAX).max(1);
    // Newest first: it is the one that is looked for.
    for at in (0..labels.len()).rev().step_by(step) {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escape(&labels[at]));
        for one in series {
            let value = one.values.get(at).filter(|value| value.is_finite());
            let value = value.map_or_else(|| "–".to_owned(), |value| format!("{} {unit}", compact(*value)));
            let _ = write!(html, "<td class=\"num\">{}</td>", escape(value.trim()));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div></details></figure>");
    Safe::new(html)
}

/// Lines at a few round numbers, and the first, middle and last label.
fn grid(svg: &mut String, top: f64, unit: &str, labels: &[String]) {
    for part in [0.0, 0.5, 1.0] {
        let y = height_of(top * part, top);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}L{WIDTH} {y:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            escape(&scale_word(top * part, unit))
        );
    }
    let places = match labels.len() {
        0 => &[][..],
        1 => &[(0, "start", LEFT)][..],
        more => &[(0, "start", LEFT), (more / 2, "middle", (LEFT + WIDTH) / 2.0), (more - 1, "end", WIDTH)][..],
    };
    for (at, anchor, x) in places {
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - 4.0,
            escape(&labels[*at])
        );
    }
}

fn scale_word(value: f64, unit: &str) -> String {
    match unit {
        "$" => format!("${}", compact(value)),
        _ => compact(value),
    }
}

fn height_of(value: f64, top: f64) -> f64 {
    let room = HEIGHT - BOTTOM - TOP;
    TOP + room * (1.0 - (value / top).clamp(0.0, 1.0))
}

/// A round number that none of these is above: 1, 2 or 5 of some power of ten.
fn top_of(values: impl Iterator<Item = f64>) -> f64 {
    let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= most).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_ends_at_a_round_number() {
        for (most, top) in [(0.0, 1.0), (0.3, 0.5), (1.0, 1.0), (17.0, 20.0), (999.0, 1_000.0)] {
            assert!((top_of([most, f64::NAN].into_iter()) - top).abs() < 1e-9, "{most}");
        }
    }

    #[test]
    fn labels_are_inert_and_gaps_are_gaps() {
        let hostile = "</svg><script>x</script>\"".to_owned();
        let labels = vec![hostile.clone(), "b".into(), "c".into()];
        let series = [Series::new(&*hostile, vec![1.0, f64::NAN, 3.0])];
        let bar = Bar { label: hostile.clone(), href: hostile.clone(), value: 1.0, text: hostile.clone() };
        for safe in [
            line(&hostile, "jobs", &labels, &series),
            columns(&hostile, "$", &labels, &series),
            bars(&hostile, &[bar]),
            sparkline(&[1.0, 2.0], &hostile),
            ticks(&[(1.0, true)], &hostile),
            gauge(f64::NAN, &hostile),
        ] {
            let text = safe.to_string();
            assert!(!text.contains("<script") && !text.contains("style=") && !text.contains("NaN"), "{text}");
        }
        let text = line("t", "jobs", &labels, &series).to_string();
        assert_eq!(text.matches("M44.0").count() + text.matches("M640.0").count(), 2, "two pieces: {text}");
        assert_eq!(text.matches("<circle").count(), 2, "a point alone is a dot: {text}");
        assert!(text.contains("<td class=\"num\">–</td>"));
    }

    #[test]
    fn nothing_at_all_is_a_chart_too() {
        for safe in
            [line("t", "", &[], &[]), columns("t", "", &[], &[]), bars("t", &[]), sparkline(&[], "t"), ticks(&[], "t")]
        {
            assert!(!safe.to_string().contains("NaN"));
        }
    }
}
