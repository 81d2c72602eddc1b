"""The profiler: clock, counters and the result of hookline.profile."""
