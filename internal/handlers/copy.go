package handlers

import "pawl/internal/message"

// copyAll is the handler copy: the identity. Key, value, headers and timestamp of every record go
// to one output as they are. It rejects nothing and allocates nothing.
type copyAll struct {
	output string
}

func newCopy(o *options) Handler { return &copyAll{output: o.output("output", "")} }

// Handle emits the record again.
func (c *copyAll) Handle(in message.In, out *message.Batch) error {
	out.Emit(message.Out{
		Output:    c.output,
		Key:       in.Key,
		Value:     in.Value,
		Headers:   in.Headers,
		Timestamp: in.Timestamp,
	})
	return nil
}
