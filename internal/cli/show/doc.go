// Package show turns answers of the queen into text for people. Everything in it is a pure
// function of its arguments: no clock, no terminal, no connection.
//
// Texts from the wire pass plaintext.Line before they are written, so that the name of a model
// cannot move the cursor or recolour the screen.
package show
