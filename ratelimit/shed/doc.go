// Package shed keeps a service at work when it is asked for more than it can do: limits
// on what is in progress, fixed or learnt, and rules by which the least important
// requests go first.
package shed
