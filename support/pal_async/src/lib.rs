//! The one async driver: named tasks, timers, fd readiness and a blocking pool, over smol.
