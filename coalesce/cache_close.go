package coalesce

import "context"

// Close ends the refreshes: none begins any more, and Close waits for those
// under way. When ctx ends first it cancels them and returns ctx.Err(). What is
// in memory is served further on, what is not there gets ErrClosed. Loads that
// callers wait for go on. The Batcher of [NewBatchCache] is closed too. It may
// be called more than once.
func (c *Cache[K, V]) Close(ctx context.Context) error {
	c.mu.Lock()
	first := !c.closed.Swap(true)
	if first && c.refreshers == 0 {
		close(c.idle)
	}
	c.mu.Unlock()

	var err error
	select {
	case <-c.idle:
	case <-ctx.Done():
		c.cancel()
		<-c.idle // at once: they leave their loads
		err = ctx.Err()
	}
	c.cancel()
	if c.batcher != nil {
		if e := c.batcher.Close(ctx); err == nil {
			err = e
		}
	}
	return err
}
