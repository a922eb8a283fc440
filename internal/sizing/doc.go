// Package sizing computes what a load wants: lanes, processes, partitions, and what that asks of the
// brokers. It is arithmetic, from two costs of a lane that were measured ([Fit]) to a [Size] ([Plan]),
// and knows no broker.
//
// A lane does one transaction after the other. It gathers records, handling them as they come, and ends
// the transaction, while the next ones come and wait. It gathers until it has handled all there is, but
// no shorter than ending the last one took (internal/txn, pace), so that
//
//	cycle = gather + End,   gather = max(End, interval_min, Record x records of the cycle)
//
// and, where r records come a second to a lane, cycle is the largest of 2 x End, interval_min + End and
// End / (1 - r x Record). Everything else follows from that: transactions a second, records in each of
// them, how long a record waits, and markers. The tests play it record by record.
package sizing
