package outbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

type publisher func(ctx context.Context, batch []outbox.Message) []error

func (p publisher) Publish(ctx context.Context, batch []outbox.Message) []error {
	return p(ctx, batch)
}

var errDown = errors.New("destination is down")

func TestPublisherFuncStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	n := 0
	errs := outbox.PublisherFunc(func(context.Context, outbox.Message) error {
		if n++; n == 2 {
			cancel(cause)
		}
		return nil
	}).Publish(ctx, make([]outbox.Message, 4))
	require.Equal(t, []error{nil, nil, cause, cause}, errs)
	require.Equal(t, 2, n)
}
