package balance

import "time"

// pool is Prequal's pool of probes. (stub)
type pool struct{}

func (p *pool) choose(c *chooser, v *view) int         { return c.draw(v) }
func (p *pool) forget(n *node)                         {}
func (p *pool) add(n *node, l Load, now time.Duration) {}
