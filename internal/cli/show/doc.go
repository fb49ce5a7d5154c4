// Package show turns the queen's answers into text for people. Everything in it
// is a pure function of its arguments: no clock, no terminal, no connection.
//
// All texts that came over the wire pass Clean before they are written, so that
// a model's name can not move the cursor or recolour the screen.
package show
