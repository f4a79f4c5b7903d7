"""Label Studio: tasks with labels as predictions, and the corrections of people."""
