"""What happens when a control is used: each module connects one part of the page to `ui.work`."""
