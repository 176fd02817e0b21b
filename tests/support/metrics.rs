//! Prometheus' text format, as far as the tests read it: samples by name and labels.

use std::collections::BTreeMap;

/// The samples of one reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the text; what is no sample is skipped.
    pub fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(sample)
                .collect(),
        )
    }

    /// The sum of all samples of `name` that carry each of `labels`; 0 if there are none, since
    /// a counter appears with its first event.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |series: &str| {
            let (own, rest) = series.split_once('{').unwrap_or((series, ""));
            own == name
                && labels
                    .iter()
                    .all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
        };
        self.0
            .iter()
            .filter(|(series, _)| wanted(series))
            .map(|(_, value)| value)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(
            "# TYPE a counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\",y=\"2\"} 4\nb 5.5\n# EOF\n",
        );
        let check = |name: &str, labels: &[(&str, &str)], sum: f64| {
            assert!(
                (metrics.sum(name, labels) - sum).abs() < 1e-9,
                "{name} {labels:?}"
            );
        };
        check("a_total", &[], 7.0);
        check("a_total", &[("x", "1")], 3.0);
        check("a_total", &[("y", "2"), ("x", "2")], 4.0);
        check("b", &[], 5.5);
        check("c", &[], 0.0);
    }
}
