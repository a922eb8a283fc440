// Package sim plays histories of the whole service in virtual time: the real engine, ingest, dispatch
// and relay of three replicas, against kfake over a network in memory, the ledger in memory and an
// endpoint that keeps a journal. A seed makes a script of faults, the script is played in a
// testing/synctest bubble, the faults are healed, and what is left behind is held against the promise.
//
//	make sim N=2000 SEED=1                                  # seeds 1 to 2000
//	go test -tags synctests ./internal/sim -sim.script F    # a saved history again
//	go test -tags synctests ./internal/sim -sim.script F -sim.shrink
//
// How it works, what it injects and what it can't show stands in DESIGN.md beside this file.
package sim
