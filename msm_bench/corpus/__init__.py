"""From a spec to text: documents for midtraining and chats for fine-tuning, and the checks of both."""
