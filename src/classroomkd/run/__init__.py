"""One run: mentors, their stored answers, students, and the folder that holds it all."""
