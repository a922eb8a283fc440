package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"pawl/internal/admin"
	"pawl/internal/audit"
)

// auditTimeout bounds how long the answer to an order waits for the audit; `processor drain` waits longer.
const auditTimeout = 3 * time.Second

// OpenAudit makes the trail of orders of the application; close it.
func (c Config) OpenAudit(client []kgo.Opt) (*audit.Trail, error) {
	return audit.Open(client, c.ControlTopic())
}

// auditDrain writes down who ordered a drain, which has begun: brokers that are away are no reason to go on working.
func (s *service) auditDrain(ctx context.Context, order admin.Drain) {
	action := "drain"
	if order.Leave {
		action = "drain --leave"
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout) // whoever ordered it may have gone
	defer cancel()
	err := s.writeDrain(ctx, audit.Order{Action: action, Target: "instance " + s.conf.Instance, Reason: order.Reason, Actor: order.Actor})
	if err != nil {
		s.log.Warn("the order to drain is not in the audit", slog.String("actor", order.Actor), slog.String("reason", order.Reason), slog.Any("err", err))
	}
}

func (s *service) writeDrain(ctx context.Context, order audit.Order) error {
	options, err := s.kafka.Options()
	if err != nil {
		return err
	}
	trail, err := s.conf.OpenAudit(options)
	if err != nil {
		return err
	}
	defer trail.Close()
	entry, err := trail.Begin(ctx, order)
	if err != nil {
		return err
	}
	return trail.End(ctx, entry, "", nil)
}
