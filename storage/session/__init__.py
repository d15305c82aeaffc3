"""The files of one session: steps, their index, replay, the meta."""
