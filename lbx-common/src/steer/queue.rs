//! Which CPU puts a frame into a certain queue of a tap: the queue an XDP frame lands in is the CPU's number modulo the
//! number of queues (`tun_xdp_xmit`, drivers/net/tun.c).

/// The CPU to hand a frame to so that it lands in `queue` of `queues`; `None` if it may stay on `here`: that is the right
/// one, or there is none (fewer than `queue + 1` CPUs, which are numbered from 0 without gaps). `spread`: the same for
/// all frames of a flow; of several right CPUs it chooses one.
#[inline(always)]
pub const fn cpu(queue: u32, queues: u32, cpus: u32, here: u32, spread: u32) -> Option<u32> {
    if queues < 2 || queue >= queues || queue >= cpus || here % queues == queue {
        return None;
    }
    let right = (cpus - 1 - queue) / queues + 1;
    Some(queue + spread % right * queues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_one_that_hits_the_queue() {
        for cpus in 1..20 {
            for queues in 1..17 {
                for queue in 0..queues {
                    let mut seen = std::collections::BTreeSet::new();
                    for (here, spread) in (0..cpus).flat_map(|here| (0..40).map(move |spread| (here, spread)))
                    {
                        match cpu(queue, queues, cpus, here, spread) {
                            Some(cpu) => {
                                assert!(cpu < cpus && cpu % queues == queue && here % queues != queue);
                                seen.insert(cpu);
                            }
                            None => assert!(here % queues == queue || queue >= cpus),
                        }
                    }
                    let right = (0..cpus).filter(|cpu| cpu % queues == queue).count();
                    let asked = cpus > 1 && (0..cpus).any(|here| here % queues != queue);
                    assert!(!asked || seen.len() == right, "{queue} of {queues} on {cpus}: {seen:?}");
                }
            }
        }
        assert_eq!(cpu(5, 4, 8, 0, 0), None, "no such queue");
    }
}
