// Package verify is the exactly-once checker: topics, ledger and call journal in, violations out.
//
// It shares no code with the engine and the parts of the effect ledger. What they wrote it reads back
// from the bytes, by the formats that internal/txn/DESIGN.md and the ledger's migrations lay down, so
// that a mistake of theirs is not repeated here. Only the pure handlers are shared: applied to the
// same inputs with no engine, no transaction and no crash they are the model of what must be there.
//
// A Checker is fed with records and closed with a Report; Check does both for a history in memory.
// Which verdict needs which evidence stands in DESIGN.md beside this file.
package verify
