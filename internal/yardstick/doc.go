// Package yardstick measures processes that copy one topic to another, from outside: throughput is read
// off the offsets that a group commits and the end of its output, CPU and memory off the process table,
// latency off records that carry the time at which they were due. Who copies it does not know, so that
// everybody is measured alike: `processor bench` on a cluster of the user's, bench/ beside our peers.
//
//   - A [Stage] is a cluster and what looks at it.
//   - A [Process] is one of those that copy; [Run] starts some, has them measured and ends them in order.
//   - [Turns] lets all have their turn round after round, a [Spread] is what comes of the rounds.
//   - [Loop] is whom one compares with: poll, produce, flush, commit.
package yardstick
