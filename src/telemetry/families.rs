//! How metric families come into being: each is registered in one line, and remembered for the page that documents them.

use prometheus::{
    Counter, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// What one family is called and distinguished by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) labels: Vec<&'static str>,
}

/// A registry under construction. Names and labels are constants of ours: that they are unique and well-formed is an
/// invariant, not an error of the caller's.
#[derive(Default)]
pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) catalogue: Vec<Family>,
}

/// One constructor for each type of the prometheus crate; those without labels take none.
macro_rules! constructor {
    ($method:ident -> $type:ident, $kind:literal) => {
        pub(super) fn $method(&mut self, name: &'static str, help: &str) -> $type {
            let metric = $type::new(name, help).expect("metric names are well-formed");
            self.add(name, $kind, &[], metric)
        }
    };
    ($method:ident -> $type:ident by labels, $kind:literal) => {
        pub(super) fn $method(&mut self, name: &'static str, help: &str, labels: &[&'static str]) -> $type {
            let metric = $type::new(Opts::new(name, help), labels).expect("metric names are well-formed");
            self.add(name, $kind, labels, metric)
        }
    };
}

impl Families {
    constructor!(counter -> IntCounter, "counter");
    constructor!(counters -> IntCounterVec by labels, "counter");
    constructor!(gauge -> IntGauge, "gauge");
    constructor!(gauges -> IntGaugeVec by labels, "gauge");
    constructor!(floats -> GaugeVec by labels, "gauge");
    constructor!(seconds -> Counter, "counter");

    pub(super) fn histogram(&mut self, name: &'static str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let metric = Histogram::with_opts(options).expect("buckets are in order");
        self.add(name, "histogram", &[], metric)
    }

    pub(super) fn histograms(&mut self, name: &'static str, help: &str, labels: &[&'static str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let metric = HistogramVec::new(options, labels).expect("buckets are in order");
        self.add(name, "histogram", labels, metric)
    }

    /// Counters for a closed set of label values, every one present from the start: a rate needs a beginning, and an
    /// alert on a counter that has never been seen does not fire.
    pub(super) fn counted_by<K: Word>(&mut self, name: &'static str, help: &str, label: &'static str) -> CountedBy<K> {
        let family = self.counters(name, help, &[label]);
        CountedBy(K::ALL.iter().map(|word| (*word, family.with_label_values(&[word.word()]))).collect())
    }

    fn add<M: prometheus::core::Collector + Clone + 'static>(
        &mut self,
        name: &'static str,
        kind: &'static str,
        labels: &[&'static str],
        metric: M,
    ) -> M {
        self.registry.register(Box::new(metric.clone())).expect("metric names are unique");
        self.catalogue.push(Family { name, kind, labels: labels.to_vec() });
        metric
    }
}

/// A closed set of label values.
pub trait Word: Copy + PartialEq + 'static {
    /// All of them.
    const ALL: &'static [Self];
    /// As the label has it.
    fn word(self) -> &'static str;
}

/// A counter for each word of a closed set.
#[derive(Debug)]
pub struct CountedBy<K>(Vec<(K, IntCounter)>);

impl<K: Word> CountedBy<K> {
    /// Counts one.
    pub fn inc(&self, word: K) {
        self.inc_by(word, 1);
    }

    /// Counts several.
    pub fn inc_by(&self, word: K, amount: u64) {
        // A handful of words: a search is cheaper than any index that could be wrong.
        if let Some((_, counter)) = self.0.iter().find(|(candidate, _)| *candidate == word) {
            counter.inc_by(amount);
        }
    }
}
