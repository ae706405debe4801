//! Medians and percentiles.

/// The middle one, or halfway between the two; 0 of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or_default();
    f64::midpoint(at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
}

/// The value that `part` of 1000 do not exceed, of values in order; the default of none.
pub fn per_mille<T: Copy + Default>(sorted: &[T], part: usize) -> T {
    sorted.get((sorted.len() * part).div_ceil(1000).saturating_sub(1)).copied().unwrap_or_default()
}
