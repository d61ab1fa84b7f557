//! In which order tags that need each other are computed, and whether there is one.

/// `needs[i]` are those that `i` needs. An order in which each comes after what it needs; or a cycle, in which each needs the
/// next and the last the first.
pub(super) fn order(needs: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    for (user, needed) in needs.iter().enumerate() {
        for &needed in needed {
            users[needed].push(user);
        }
    }
    let mut ordered: Vec<usize> = (0..needs.len()).filter(|&one| missing[one] == 0).collect();
    let mut next = 0;
    while let Some(&done) = ordered.get(next) {
        for &user in &users[done] {
            missing[user] -= 1;
            if missing[user] == 0 {
                ordered.push(user);
            }
        }
        next += 1;
    }
    let Some(start) = (0..needs.len()).find(|&one| missing[one] > 0) else { return Ok(ordered) };
    // Each that is left needs another that is left, so the way along them comes back to itself.
    let mut way = vec![start];
    loop {
        let last = way[way.len() - 1];
        let left = needs[last].iter().copied().find(|&needed| missing[needed] > 0);
        let Some(needed) = left else { return Err(way) };
        if let Some(at) = way.iter().position(|&seen| seen == needed) {
            return Err(way.split_off(at));
        }
        way.push(needed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cycle_is_found_and_what_leads_to_it_is_not_part_of_it() {
        assert_eq!(order(&[vec![1], vec![2], vec![]]), Ok(vec![2, 1, 0]));
        assert_eq!(order(&[vec![1], vec![2], vec![3], vec![1]]), Err(vec![1, 2, 3]));
        assert_eq!(order(&[vec![0]]), Err(vec![0]));
        assert_eq!(order(&[]), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn there_is_an_order_or_a_cycle(needs in (1..9_usize).prop_flat_map(|count| {
            prop::collection::vec(prop::collection::btree_set(0..count, 0..4), count)
        })) {
            let needs: Vec<Vec<usize>> = needs.into_iter().map(|needed| needed.into_iter().collect()).collect();
            match order(&needs) {
                Ok(order) => {
                    let place = |one: usize| order.iter().position(|&other| other == one).unwrap();
                    prop_assert_eq!(order.len(), needs.len());
                    for (user, needed) in needs.iter().enumerate() {
                        prop_assert!(needed.iter().all(|&needed| place(needed) < place(user)));
                    }
                }
                Err(cycle) => {
                    let next = cycle.iter().skip(1).chain(&cycle[..1]);
                    prop_assert!(cycle.iter().zip(next).all(|(&one, next)| needs[one].contains(next)));
                }
            }
        }
    }
}
