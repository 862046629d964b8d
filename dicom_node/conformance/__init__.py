"""The standards papers, written from the program's own tables and from objects that it really makes."""
