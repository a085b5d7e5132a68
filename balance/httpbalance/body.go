package httpbalance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// body is the body of a response. It holds a pointer and nothing else, so that it
// becomes an interface without an allocation.
type body struct{ x *exchange }

func (b body) Read(p []byte) (int, error) {
	n, err := b.x.body.Read(p)
	if err != nil {
		b.x.read(err)
	}
	return n, err
}

// Close ends the pick first, so that a read at the same time does not take it for a
// failure.
func (b body) Close() error {
	b.x.finish(gone(b.x.original))
	return b.x.body.Close()
}

// writerToBody is a body for [io.Copy] that can do without a buffer.
type writerToBody struct{ body }

func (b writerToBody) WriteTo(w io.Writer) (int64, error) {
	to := &destination{w: w}
	n, err := b.x.body.(io.WriterTo).WriteTo(to)
	switch {
	case err == nil:
		b.x.finish(nil)
	case to.err == nil:
		b.x.finish(err)
	} // otherwise w failed, and the body is as good as before
	return n, err
}

// destination notes whether it was to blame for an error.
type destination struct {
	w   io.Writer
	err error
}

func (d *destination) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		d.err = err
	}
	return n, err
}

// upgraded is the connection after 101 Switching Protocols. It is in use until it is
// closed: the other side may still listen when it has said all.
type upgraded struct {
	x *exchange
	w io.Writer
}

func (u upgraded) Read(p []byte) (int, error) {
	n, err := u.x.body.Read(p)
	if err != nil && err != io.EOF {
		u.x.finish(err)
	}
	return n, err
}

func (u upgraded) Write(p []byte) (int, error) {
	return u.w.Write(p) // if the other side has closed, a read says how
}

// CloseWrite is there because the connection of net/http has it too.
func (u upgraded) CloseWrite() error {
	if c, ok := u.x.body.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return fmt.Errorf("httpbalance: CloseWrite: %w", http.ErrNotSupported)
}

func (u upgraded) Close() error {
	// The deadline, if there was one, was that of the handshake.
	if errors.Is(gone(u.x.original), context.Canceled) {
		u.x.finish(context.Canceled)
	} else {
		u.x.finish(nil)
	}
	return u.x.body.Close()
}

// upload is the body of a request. It notes whether reading it failed, for which the
// backend is not to blame.
type upload struct {
	body   io.ReadCloser
	closed atomic.Bool
	failed atomic.Bool
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.body.Read(p)
	if err != nil && err != io.EOF && !u.closed.Load() {
		u.failed.Store(true)
	}
	return n, err
}

func (u *upload) Close() error {
	u.closed.Store(true)
	return u.body.Close()
}

const (
	// A discarded body is read this far, so that its connection can be used again. An
	// error page is shorter, and a longer one is not worth the waiting.
	discardBytes = 8 << 10
	discardTime  = 50 * time.Millisecond
)

// discard reads the rest of a body and closes it. It takes discardTime at most.
func discard(b io.ReadCloser) {
	if b == nil {
		return
	}
	cut := time.AfterFunc(discardTime, func() { _ = b.Close() })
	_, _ = io.CopyN(io.Discard, b, discardBytes)
	cut.Stop()
	_ = b.Close()
}
