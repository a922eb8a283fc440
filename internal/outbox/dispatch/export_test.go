package dispatch

// KeepParked lets a dispatcher that does not run yet keep so many parked intents of a lane in memory.
func (d *Dispatcher) KeepParked(n int) { d.parkedMax = n }
