package txn

import "context"

// ears let a lane hear of pauses while it waits for records: with a change its waiting ends. They cost a poll nothing.
type ears struct {
	pauses  Pauses
	waiting context.Context //nolint:containedctx // it is made once for many polls, and ends between them
	cancel  context.CancelFunc
}

// listen returns a context that ends with ctx and with the next change of the pauses. What has changed before is to be
// looked at after the call.
func (e *ears) listen(ctx context.Context) context.Context {
	if e.pauses == nil {
		return ctx
	}
	if e.waiting != nil && e.waiting.Err() == nil {
		return e.waiting
	}
	e.close()
	waiting, cancel := context.WithCancel(ctx)
	changed := e.pauses.Changed()
	go func() {
		defer cancel()
		select {
		case <-changed:
		case <-waiting.Done():
		}
	}()
	e.waiting, e.cancel = waiting, cancel
	return waiting
}

func (e *ears) close() {
	if e.cancel != nil {
		e.cancel()
	}
}
