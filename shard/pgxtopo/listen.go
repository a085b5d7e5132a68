package pgxtopo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// idle is how long a connection may be silent before it is asked whether it lives: a
	// server that vanished sends nothing, and TCP notices after hours.
	idle = 30 * time.Second

	// within is how long connecting and each answer may take.
	within = 10 * time.Second
)

// Listen returns a function for topo.TableOptions.Listen, which connects with a copy of
// config, LISTENs to its channel and calls changed: once it listens, since a map may have
// come before, and then for each notification. It returns the error of ctx within
// milliseconds when that ends, and that of the connection when it breaks, or does not
// answer within 10 s when it is asked, after 30 s of silence. topo.Table calls it again.
//
// A publication in any keyspace of the table calls changed: a notification has the
// keyspace, and a watch asks only for its own row.
//
// The function is safe for concurrent use by multiple goroutines: each call has its own
// connection. Returns an error if config is nil or was not made by [pgx.ParseConfig].
func Listen(config *pgx.ConnConfig) (func(ctx context.Context, channel string, changed func()) error, error) {
	if config == nil {
		return nil, errors.New("pgxtopo: config is nil, expected a *pgx.ConnConfig")
	}
	if config.BuildFrontend == nil { // pgx would panic
		return nil, errors.New("pgxtopo: config has no BuildFrontend, expected one that pgx.ParseConfig made")
	}
	config = config.Copy()
	return func(ctx context.Context, channel string, changed func()) error {
		if err := listen(ctx, config, channel, changed); ctx.Err() == nil {
			return fmt.Errorf("pgxtopo: %w", err)
		}
		return ctx.Err()
	}, nil
}

func listen(ctx context.Context, config *pgx.ConnConfig, channel string, changed func()) error {
	starting, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, err := pgx.ConnectConfig(starting, config.Copy())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(context.Background()) }() // says goodbye and waits for no answer
	if _, err := c.Exec(starting, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	changed()
	for {
		waiting, cancel := context.WithTimeout(ctx, idle)
		_, err := c.WaitForNotification(waiting)
		silent := waiting.Err() != nil && ctx.Err() == nil && !c.IsClosed()
		cancel()
		switch {
		case err == nil:
			changed()
		case !silent:
			return err
		default:
			if err := ping(ctx, c); err != nil {
				return err
			}
		}
	}
}

func ping(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return c.Ping(ctx)
}
